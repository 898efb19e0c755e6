"""Virtual time: an event loop whose clock jumps to the next timer when nothing else can happen.

Hours pass in milliseconds, `asyncio.sleep` and `asyncio.timeout` included, and the same program
takes the same course every time: nothing in it depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")
_Ready = list[tuple[selectors.SelectorKey, int]]


class StandstillError(RuntimeError):
    """Every task waits and no timer runs: nothing would ever happen again."""


class _Jump(selectors.SelectSelector):
    """Never waits for a socket: instead of waiting, it moves the loop's clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> _Ready:
        if timeout is None:
            raise StandstillError
        self.now += max(0.0, timeout)
        return []


class _Task(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, not on where in memory."""

    def __init__(self, *arguments: Any, number: int, **options: Any) -> None:
        self._number = number  # first: asyncio puts a task into a set when it is made
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. It does no I/O: sockets and threads are never heard of."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        #: The loop's own: what ran in this process before must make no difference.
        self._numbers = itertools.count()
        self.set_task_factory(self._make_task)
        #: Rounding of the sums of waits must not let a timer be a moment too early.
        self._clock_resolution = 1e-6

    def _make_task(self, loop: asyncio.AbstractEventLoop, job: Any, **options: Any) -> _Task:
        return _Task(job, loop=loop, number=next(self._numbers), **options)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jump.now


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine to its end in virtual time.

    Raises:
        StandstillError: it waits for what cannot happen.
    """
    with asyncio.Runner(loop_factory=VirtualLoop, debug=False) as runner:
        return runner.run(main)


class LoopClock:
    """See ports.clock: the running loop's time, and chance out of a seed.

    Args:
        seed: the same seed gives the same chances.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - has to be repeatable, not secret

    def now(self) -> float:
        """See ports.clock."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """See ports.clock."""
        await asyncio.sleep(seconds)

    def chance(self) -> float:
        """See ports.clock."""
        return self._random.random()
