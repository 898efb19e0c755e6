"""``readside reset`` and ``readside forget``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from readside.adapters.postgres.session import Session
from readside.apps.cli.target import load_app
from readside.core.errors import SettingsError
from readside.operate import reset as work
from readside.ports.store import Store


async def reset(target: str, projection: str, *, give_up: bool, yes: bool, json: bool) -> int:
    """Empty a projection and let it begin again."""
    _confirm(f"remove every document of {projection} from the read store", yes=yes)
    async with _opened(target) as (session, app, store):
        done = await work.reset(session, app, projection, store, give_up=give_up)
    if json:
        print(msgspec.json.encode(done).decode())
    else:
        print(f"{projection}: {done.removed} documents removed; it begins with {done.begins}")
    return 0


async def forget(target: str, projection: str, *, documents: bool, yes: bool) -> int:
    """Let go of a projection."""
    what = f"forget how far {projection} is"
    _confirm(f"{what}, and remove its documents" if documents else what, yes=yes)
    async with _opened(target) as (session, app, store):
        removed = await work.forget(session, app, projection, store if documents else None)
    print(f"{projection} is forgotten" + (f"; {removed} documents removed" if documents else ""))
    return 0


@asynccontextmanager
async def _opened(target: str) -> AsyncIterator[tuple[Session, str, Store]]:
    app = load_app(target)
    try:
        runtime = await app.runtime()
        session = Session((await runtime.addresses()).write_store, "operate")
        try:
            yield session, app.name, await runtime.store()
        finally:
            await session.close()
    finally:
        await app.close()


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SettingsError(f"This would {what}.", mend="add --yes if that is what you want")
    if input(f"This will {what}. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SettingsError("Nothing was done.")
