"""What a partition does about a hole: ask for the records again, then look through the whole log."""

from __future__ import annotations

from enum import Enum

from readside.core.position import BEGINNING, Position

#: Seconds before the same wish is made again.
_AGAIN = 5.0
#: Seconds between two looks at the answer: each is a round trip to the write store.
_ANSWER_EVERY = 1.0
#: Seconds of silence after which a watermark's last record counts as missing.
_GRACE = 1.5


class Step(Enum):
    """The next thing to do about a hole."""

    WAIT = "wait"
    ASK = "ask"
    RESCAN = "rescan"
    LOST = "lost"


class Healing:
    """Decides, without I/O, how one partition gets out of a hole. Times are steady seconds.

    First the relay is asked to send again from PostgreSQL. Where PostgreSQL has it no more,
    the broker's log is read from its beginning. Where that does not help, it is lost.
    """

    def __init__(self) -> None:
        self._asked_at: float | None = None
        #: The last record that the log may have held when the wish was made: what is sent again follows it.
        self._until = BEGINNING
        self._answer_at = 0.0
        self._rescanned = False
        self._idle_since: float | None = None

    @property
    def active(self) -> bool:
        """Whether there is a hole."""
        return self._asked_at is not None or self._rescanned

    def applied(self) -> None:
        """A next record came: no hole any more."""
        self._asked_at = None
        self._rescanned = False
        self._idle_since = None

    def tail_missing(self, now: float) -> bool:
        """Note that a watermark names a record which has not come; say if that lasts too long."""
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since >= _GRACE

    def heard(self) -> None:
        """Note that records came, whatever they are: the log is not read to its end."""
        self._idle_since = None

    def tail_complete(self) -> None:
        """Note that everything which the watermark names is here."""
        self._idle_since = None

    def wants_answer(self, now: float) -> bool:
        """Whether to look now if the relay has called the last wish impossible."""
        if not self.active or now - self._answer_at < _ANSWER_EVERY:
            return False
        self._answer_at = now
        return True

    def hole(
        self,
        now: float,
        *,
        unreachable: bool,
        behind: Position | None = None,
        newest: Position = BEGINNING,
    ) -> Step:
        """Decide what to do about a hole that is seen now.

        Args:
            now: seconds.
            unreachable: the relay has said that it cannot send what is missing.
            behind: the last record that was read behind the hole; None if there is none to read.
            newest: the last record that a watermark has named.

        A wish is repeated only when all was read that the log held when it was made. The records
        that are sent again lie behind those, and to ask once more would only put more before
        whoever is slow: the log could grow faster than it is read.
        """
        if self._asked_at is not None and unreachable:
            return self._without_relay(behind, newest)
        if self._asked_at is not None and now - self._asked_at < _ANSWER_EVERY:
            self._until = max(self._until, newest)
        passed = behind is None or behind > self._until
        if self._asked_at is None or (passed and now - self._asked_at >= _AGAIN):
            self._asked_at = now
            self._until = max(newest, behind or BEGINNING)
            return Step.ASK
        return Step.WAIT

    def _without_relay(self, behind: Position | None, newest: Position) -> Step:
        """Look through the whole log; what is missing may have been sent again at its end."""
        if not self._rescanned:
            self._rescanned = True
            self._idle_since = None
            self._until = max(self._until, newest, behind or BEGINNING)
            return Step.RESCAN
        return Step.LOST if behind is None or behind > self._until else Step.WAIT
