"""``readside reset`` and ``readside forget``."""

from __future__ import annotations

import sys

import msgspec

from readside.app import App
from readside.apps.cli.target import notes_of
from readside.core.errors import RefusedError, SettingsError
from readside.operate import reset as work


async def reset(app: App, projection: str, *, give_up: bool, yes: bool, json: bool) -> int:
    """Empty a projection and let it begin again."""
    declared = app.projections.get(projection)
    if declared is not None and declared.mode == "inline":
        raise RefusedError(
            f"Projection {projection} is inline: nothing would fill it again.",
            mend="write its rows by SQL; or: readside forget module:app projection --documents,"
            " and declare it with mode='async'",
        )
    _confirm(f"remove every document of {projection} from the read store", yes=yes)
    async with notes_of(app, "reset") as session:
        store = await (await app.runtime()).store()
        done = await work.reset(session, app.name, projection, store, give_up=give_up)
    if json:
        print(msgspec.json.encode(done).decode())
    else:
        print(f"{projection}: {done.removed} documents removed; it begins with {done.begins}")
    return 0


async def forget(app: App, projection: str, *, documents: bool, yes: bool) -> int:
    """Let go of a projection."""
    what = f"forget how far {projection} is"
    _confirm(f"{what}, and remove its documents" if documents else what, yes=yes)
    async with notes_of(app, "forget") as session:
        runtime = await app.runtime()
        inline = await runtime.inline_store()
        if await inline.holds(projection):
            if not documents:
                raise SettingsError(
                    f"Projection {projection} is inline: there is nothing to forget but its documents.",
                    mend="add --documents",
                )
            removed = await inline.reset(projection, None)
        else:
            store = await runtime.store() if documents else None
            removed = await work.forget(session, app.name, projection, store)
    print(f"{projection} is forgotten" + (f"; {removed} documents removed" if documents else ""))
    return 0


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SettingsError(f"This would {what}.", mend="add --yes if that is what you want")
    if input(f"This will {what}. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SettingsError("Nothing was done.")
