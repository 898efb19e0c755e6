"""How tasks are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: Seconds between two requests to end.
_AGAIN = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> list[BaseException | None]:
    """Cancel tasks and wait until each has ended; return what each ended with, cancellation aside.

    Asks again and again: a client library may swallow a cancellation (nats-py does, when it
    strikes while it flushes), and the task would then go on as if nobody had asked.

    Never leaves a task behind: where this call is cancelled itself, it goes on until all have
    ended and passes the cancellation on only then. A task left behind would go on working
    with connections which its owner is about to close.
    """
    ended = list(tasks)
    interrupted = False
    while waiting := {task for task in ended if not task.done()}:
        for task in waiting:
            task.cancel()
        try:
            await asyncio.wait(waiting, timeout=_AGAIN)
        except asyncio.CancelledError:
            interrupted = True
    outcomes = [None if task.cancelled() else task.exception() for task in ended]
    if interrupted:
        raise asyncio.CancelledError
    return outcomes
