"""How tasks are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: Seconds between two requests to end.
_AGAIN = 0.3


async def end(tasks: Iterable[asyncio.Task[Any]]) -> list[BaseException | None]:
    """Cancel tasks and wait until each has ended; return what each ended with, cancellation aside.

    Asks again and again: a client library may swallow a cancellation (nats-py does, when it
    strikes while it flushes), and the task would then go on as if nobody had asked.
    """
    ended = list(tasks)
    waiting = {task for task in ended if not task.done()}
    cancelled: asyncio.CancelledError | None = None
    while waiting:
        for task in waiting:
            task.cancel()
        try:
            _, waiting = await asyncio.wait(waiting, timeout=_AGAIN)
        except asyncio.CancelledError as error:
            # Asked to end while ending: nobody else would wait for these tasks.
            cancelled, waiting = error, {task for task in waiting if not task.done()}
    outcomes = [None if task.cancelled() else task.exception() for task in ended]
    if cancelled is not None:
        raise cancelled
    return outcomes
