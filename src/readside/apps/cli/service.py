"""``readside init`` and ``readside run``."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from readside.apps.cli.status import render
from readside.apps.cli.target import load_app
from readside.core.errors import ReadsideError
from readside.operate.status import status
from readside.ports.ending import end
from readside.runtime import Addresses, Runtime
from readside.service import Role, Service

_SAY_EVERY = 10.0


async def init(target: str, *, json: bool) -> int:
    """Install, and print what was done."""
    app = load_app(target)
    runtime = await app.runtime()
    try:
        done = await runtime.install()
    finally:
        await app.close()
    if json:
        print(msgspec.json.encode({"app": app.name, "done": done}).decode())
    else:
        print("\n".join(f"made: {what}" for what in done) or "nothing to do: everything is there")
    return 0


async def run(target: str, role: Role) -> int:
    """Run roles of an app until cancelled."""
    app = load_app(target)
    runtime = await app.runtime()
    try:
        addresses = await runtime.addresses()
        service = Service(runtime, app.projections, role, say=_say)
        work = asyncio.create_task(service.run())
        view = asyncio.create_task(_view(service, runtime, addresses))
        try:
            await asyncio.wait({work, view}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            return 0
        finally:
            await end((view, work))
    finally:
        await app.close()


def _say(text: str) -> None:
    print(f"readside: {text}", file=sys.stderr, flush=True)


async def _view(service: Service, runtime: Runtime, addresses: Addresses) -> None:
    await service.ready.wait()
    _say(f"running app {runtime.app} as {service.worker}")
    if sys.stdout.isatty():
        await _live(runtime, addresses)
    while True:
        await asyncio.sleep(_SAY_EVERY)
        try:
            seen = await status(addresses.write_store, runtime.app)
        except ReadsideError:
            continue  # the roles have said so already
        for projection in seen.projections:
            print(
                f"{projection.name}: {projection.state}, lag {projection.lag_events} events,"
                f" {projection.rate:.0f}/s; relay {seen.relay.state}",
                flush=True,
            )


async def _live(runtime: Runtime, addresses: Addresses) -> None:
    from rich.live import Live  # noqa: PLC0415 - only on a terminal

    with Live(auto_refresh=False) as live:
        while True:
            try:
                live.update(render(await status(addresses.write_store, runtime.app)), refresh=True)
            except ReadsideError as error:
                live.update(str(error), refresh=True)
            await asyncio.sleep(1.0)
