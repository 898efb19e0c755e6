"""Runs a coroutine as the main job of a process: uvloop where it is there, a clean end on signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from readside.core.errors import ReadsideError

#: Exit codes: ended by Ctrl-C or SIGTERM; failed with a message.
INTERRUPTED = 130
FAILED = 1
#: Seconds that an orderly end may take; after that the process ends without order, and what
#: it was doing is repeated at the next start.
_GRACE = 1.8


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run until done, Ctrl-C or SIGTERM; print readside's errors without a traceback."""
    factory = _loop_factory()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(_interruptible(work))
    except ReadsideError as error:
        print(f"readside: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if stopped:
            return
        stopped = True
        loop.call_later(_GRACE, _end_now)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if stopped:
            return INTERRUPTED
        raise


def _end_now() -> None:
    os._exit(INTERRUPTED)  # embedded servers end with their parent
