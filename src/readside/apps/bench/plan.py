"""What a run of the bench does: which parts, how often, how much."""

from __future__ import annotations

from typing import NamedTuple

from readside.core.errors import SettingsError

#: Ways of a backlog to the read store.
PATHS = ("direct", "nats", "frames")
PARTS = ("limit", *PATHS, "latency", "record", "growth")
#: Events in one transaction of a backlog.
PER_TRANSACTION = 100
#: Events a second: the last ones come as several events in a transaction.
RATES = (100, 1_000, 5_000, 20_000)
#: At this rate the headline figures of latency are measured.
HEADLINE_RATE = 1_000
#: Beyond this rate, transactions a second stay the same and get larger.
_TRANSACTIONS = 500


class Backlog(NamedTuple):
    """Events that wait in the outbox."""

    events: int
    documents: int
    #: Bytes of one event's JSON, about.
    payload: int = 300
    per_transaction: int = PER_TRANSACTION
    partitions: int = 8
    projections: int = 1
    #: Rows that were in the outbox before, and are not to be drained.
    older: int = 0


class Plan(NamedTuple):
    """One run."""

    parts: frozenset[str]
    rounds: int
    backlog: Backlog
    rates: tuple[int, ...]
    #: Seconds of traffic at each rate, and of each round of the write side.
    latency_seconds: float
    record_seconds: float


def plan(*, quick: bool, rounds: int | None, events: int | None, only: str, growth: bool) -> Plan:
    """Settle what is to be done.

    Raises:
        SettingsError: a number or a part makes no sense.
    """
    wanted_rounds = (3 if quick else 5) if rounds is None else rounds
    wanted_events = (100_000 if quick else 300_000) if events is None else events
    if wanted_rounds < 1:
        raise SettingsError("rounds count from 1.", mend="leave --rounds out, to begin with")
    if wanted_events < 2 * PER_TRANSACTION:
        raise SettingsError(
            f"{wanted_events} events are too few to measure.",
            mend=f"use {2 * PER_TRANSACTION} or more; the default is 300000",
        )
    small = wanted_events < 20_000  # noqa: PLR2004 - a trial, not a measurement
    return Plan(
        _parts(only, growth=growth, quick=quick),
        wanted_rounds,
        Backlog(wanted_events, max(1, wanted_events // 3)),
        (HEADLINE_RATE,) if quick else RATES,
        1.0 if small else 2.5 if quick else 10.0,
        0.3 if small else 0.8 if quick else 3.0,
    )


def _parts(only: str, *, growth: bool, quick: bool) -> frozenset[str]:
    if not only:
        core = frozenset(PARTS) - {"growth"}
        return core | {"growth"} if growth or not quick else core
    parts = frozenset(part.strip() for part in only.split(",") if part.strip())
    if unknown := parts - set(PARTS):
        raise SettingsError(
            f"There is no part {', '.join(sorted(unknown))}.", mend=f"choose of {','.join(PARTS)}"
        )
    # A rate without the limit beside it says nothing.
    needs_limit = parts & {*PATHS, "growth"}
    return parts | {"limit"} if needs_limit else parts


def transactions(rate: int) -> tuple[int, int]:
    """How a rate is made: transactions a second, and events in each."""
    if rate <= HEADLINE_RATE:
        return rate, 1
    return _TRANSACTIONS, rate // _TRANSACTIONS
