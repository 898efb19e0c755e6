"""Waits until projections have what was written: one look at a time for all who wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from readside.core.complaints import Complaints
from readside.core.errors import ReadsideError, StaleReadError, UnavailableError
from readside.core.token import Token
from readside.ports.clock import Clock
from readside.ports.ending import end
from readside.ports.store import Reading, Store
from readside.query.freshness import FEW, behind, halted, parked, pause_after, stale

log = logging.getLogger("readside")

OpenStore = Callable[[], Awaitable[Store]]


class Wanted(NamedTuple):
    """What a projection shall have: a token, and the documents that must not be parked."""

    token: Token
    keys: Sequence[str] = ()


class _Wait:
    """One who waits for one projection."""

    def __init__(self, wanted: Wanted, since: float) -> None:
        self.wanted = wanted
        self.since = since
        #: The partitions that were behind at the last look; None before the first.
        self.missing: list[int] | None = None
        #: None as its result: everything is there.
        self.answer: asyncio.Future[ReadsideError | None] = asyncio.Future()

    def tell(self, error: ReadsideError | None) -> None:
        if not self.answer.done():
            self.answer.set_result(error)

    def verdict(self, projection: str, timeout: float) -> ReadsideError | None:
        """What came of it by now."""
        if self.answer.done():
            return self.answer.result()
        if self.missing is None and timeout > 0:
            return UnavailableError(
                f"The read store did not tell within {timeout:g} s how far projection {projection} is."
            )
        return stale(
            projection, self.wanted.token, timeout, self.missing or [*self.wanted.token.partitions]
        )


class _Watch:
    """Looks how far one projection is, for all who wait for it, while there are any."""

    def __init__(self, projection: str, store: OpenStore, clock: Clock) -> None:
        self._projection = projection
        self._store = store
        self._clock = clock
        self._waiting: list[_Wait] = []
        self.task: asyncio.Task[None] | None = None

    def join(self, wanted: Wanted) -> _Wait:
        """Begin to wait; who does not wait any more cancels the answer."""
        wait = _Wait(wanted, self._clock.now())
        self._waiting.append(wait)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run(), name=f"watch {self._projection}")
        return wait

    async def _run(self) -> None:
        error: ReadsideError = UnavailableError("The app was closed meanwhile.")
        try:
            store = await self._store()
            while self._still_waiting():
                await self._clock.sleep(pause_after(self._clock.now() - self._waiting[-1].since))
                await self._look(store)
        except ReadsideError as said:
            error = said
        except Exception as unexpected:  # noqa: BLE001 - whatever it is, a committed write stands
            error = UnavailableError(f"The read store: {unexpected!r}")
            error.__cause__ = unexpected
        finally:
            for wait in self._still_waiting():
                wait.tell(error)

    def _still_waiting(self) -> list[_Wait]:
        self._waiting = [wait for wait in self._waiting if not wait.answer.done()]
        return self._waiting

    async def _look(self, store: Store) -> None:
        waiting = list(self._still_waiting())  # who comes meanwhile waits for the next look
        if not waiting:
            return
        wanted = [wait.wanted for wait in waiting]
        all_of_them = Wanted(
            Token(
                wanted[0].token.position, tuple({n for one in wanted for n in one.token.partitions})
            ),
            list(dict.fromkeys(key for one in wanted if len(one.keys) <= FEW for key in one.keys)),
        )
        reading = await self._read(store, all_of_them)
        for wait in waiting:
            wait.missing = behind(reading, wait.wanted.token)
            if reading.halted:
                wait.tell(halted(self._projection, reading))
            elif not wait.missing:
                await self._arrive(store, wait, reading)

    async def _arrive(self, store: Store, wait: _Wait, reading: Reading) -> None:
        """The token is reached; perhaps without a document that is parked."""
        keys = wait.wanted.keys
        if len(keys) > FEW or not reading.parked.isdisjoint(keys):
            # Ask for this one alone: others wait for partitions which do not concern it.
            reading = await self._read(store, wait.wanted)
        found = reading.parked.intersection(keys)
        wait.tell(parked(self._projection, min(found)) if found else None)

    async def _read(self, store: Store, wanted: Wanted) -> Reading:
        partitions = wanted.token.partitions
        return await store.read(self._projection, wanted.keys, partitions, documents=False)


class Watches:
    """Those of one app in one event loop.

    However many wait, a projection's store is asked by one of them at a time; a store that does not
    answer keeps nobody beyond the deadline.

    Args:
        store: opens the read store, or hands out the open one.
        clock: time.
    """

    def __init__(self, store: OpenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._complaints = Complaints()

    async def wait(self, wanted: Mapping[str, Wanted], timeout: float) -> dict[str, ReadsideError]:
        """Wait until each projection has what it shall have, at most `timeout` seconds in all.

        Returns:
            by projection, what a reader would be told who asks for it now; nothing for those that
            have it. `StaleReadError`: it is late. `ParkedError`: it got there without one of the
            documents. `HistoryLostError`: it is lost. Others: the read store is away or refuses.
        """
        if timeout <= 0:
            return unseen(wanted)
        waits = {name: self._watch(name).join(one) for name, one in wanted.items()}
        answers: set[asyncio.Future[Any]] = {one.answer for one in waits.values()}
        alarm: asyncio.Future[Any] = asyncio.ensure_future(self._clock.sleep(timeout))
        try:
            pending = answers
            while pending and not alarm.done():
                _, pending = await asyncio.wait(
                    {*pending, alarm}, return_when=asyncio.FIRST_COMPLETED
                )
                pending = pending - {alarm}
            verdicts = {name: wait.verdict(name, timeout) for name, wait in waits.items()}
        finally:
            alarm.cancel()
            for answer in answers:
                answer.cancel()
        late = {name: error for name, error in verdicts.items() if error is not None}
        for name, error in late.items():
            self._complain(name, error)
        return late

    def _complain(self, projection: str, error: ReadsideError) -> None:
        """Once a minute for each kind: the value may go unread, and nothing fails in silence."""
        if self._complaints.worth_saying(f"{projection} {type(error).__name__}", self._clock.now()):
            log.warning("a command went on without projection %s: %s", projection, error)

    def _watch(self, projection: str) -> _Watch:
        watch = self._watches.get(projection)
        if watch is None:
            watch = self._watches[projection] = _Watch(projection, self._store, self._clock)
        return watch

    async def close(self) -> None:
        """Look no more; who still waits is told so."""
        await end(watch.task for watch in self._watches.values() if watch.task is not None)


def unseen(wanted: Mapping[str, Wanted]) -> dict[str, ReadsideError]:
    """What can be said before anybody has looked."""
    return {
        name: StaleReadError(
            f"Nobody has waited until projection {name} has reached {one.token}.",
            mend="read it with the token",
        )
        for name, one in wanted.items()
    }
