"""The app of the scenario "huge": accounts whose documents show loss, duplicates and disorder at one look."""

from __future__ import annotations

import readside


class Paid(readside.Event, key="account"):
    """An account got its next payment."""

    account: str
    #: 1, 2, 3 … within the account.
    number: int
    amount: int
    #: Ballast: memory that is kept by somebody shows itself.
    note: str


class Account(readside.View):
    """What was paid."""

    count: int
    total: int
    in_order: bool


app = readside.App("chaos")
accounts = app.projection("accounts", Account)


@accounts.on
def paid(event: Paid, account: Account | None) -> Account:
    """Add up."""
    before = account or Account(0, 0, in_order=True)
    return Account(
        before.count + 1,
        before.total + event.amount,
        in_order=before.in_order and event.number == before.count + 1,
    )
