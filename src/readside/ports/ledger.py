"""What readside notes down for itself, durably, in the write store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from readside.core.chain import Head
from readside.core.folding import Step
from readside.core.lagging import Sample
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position
from readside.core.record import Record
from readside.core.settling import Bookmark
from readside.core.shipping import Wish


class Capture(NamedTuple):
    """The history which a relay ships: where it began, and where to go on."""

    epoch: int
    #: Whether the origin is the beginning of everything, or of what came after a restart.
    complete: bool
    #: Nothing was recorded before this position in this epoch.
    origin: Position
    partitions: int
    bookmark: Bookmark


#: A projector's wish: send this partition again from after this position.
Rewind = Wish


class Survey(NamedTuple):
    """What the relay has to know about the projectors."""

    #: The lowest position which every registered projection has applied durably; None if one
    #: never started.
    applied: Position | None
    rewinds: tuple[Rewind, ...]
    #: How often a projection of the app had begun again by then.
    resets: int


class Shipped(NamedTuple):
    """How far a relay has come."""

    lsn: int
    heads: Sequence[Head]
    samples: Mapping[int, Sequence[Sample]]
    state: str


class RelayLedger(Protocol):
    """The relay's notes."""

    async def capture(self, app: str, newest: Position = BEGINNING) -> Capture:
        """Where to go on; a new epoch where the history has restarted.

        Args:
            app: the app.
            newest: the newest position that was shipped, as far as the broker or the read store
                knows: a restored database is behind it.

        Raises:
            SchemaError: `readside init` was not run for this app.
        """

    async def confirm(self, bookmark: Bookmark, resets: int) -> bool:
        """Note durably where a next relay begins; before the source may forget.

        Args:
            bookmark: the place.
            resets: of the survey by which it was chosen.

        Returns:
            False if a projection has begun again since that survey: it may need what is before the
            place, so nothing was noted, and the source must not forget.
        """

    async def ship(self, shipped: Shipped) -> None:
        """Note how far the relay has come, for those who watch."""

    async def tell(self, state: str) -> None:
        """Note what keeps the relay from shipping, for those who watch."""

    async def survey(self) -> Survey:
        """How far the projections are, and what they wish."""

    async def answer(self, rewind: Rewind, *, reachable: bool) -> None:
        """Take a wish off the list, fulfilled or impossible."""


class Progress(NamedTuple):
    """How far one unit has come, for the relay and for those who watch."""

    unit: Unit
    position: Position
    #: What the store will not forget any more; None while this worker does not know.
    durable: Position | None
    nth: int
    #: following, healing, retrying, or lost.
    state: str
    detail: str
    #: Events a second, lately.
    rate: float
    #: The lease's, so that a worker which wakes up late does not speak for its successor.
    token: int = 0


class ProjectorLedger(Protocol):
    """The projectors' notes."""

    async def register(self, app: str, projections: Sequence[str]) -> Capture:
        """Make the projections known, so that nothing they need is forgotten; learn the history."""

    async def history(self) -> Capture:
        """The history as it is now: another process may have seen it restart."""

    async def begun_again(self) -> Capture:
        """Note that a projection begins again, and tell the history: no relay confirms any more what it chose before.

        What the projection's units reported has to be taken back before.
        """

    async def report(self, progress: Sequence[Progress]) -> bool:
        """Note how far units have come.

        Returns:
            False if something was not noted, as a newer owner of its unit has reported already.
        """

    async def wish(self, rewind: Rewind) -> None:
        """Ask the relay to send a partition again."""

    async def flushed(self) -> int:
        """The LSN up to which the write store's log is on disk."""

    async def unreachable(self, unit: Unit) -> bool:
        """Whether the relay has said that the last wish cannot be fulfilled."""


class Lease(NamedTuple):
    """The right to work on a unit for a while."""

    unit: Unit
    #: Grows with every change of owner.
    token: int
    #: Owners in a row, this one included, of which none has applied anything or left in order.
    starts: int = 0


class Leases(Protocol):
    """Who works on what. Time is the ledger's own clock, never a worker's."""

    async def tend(
        self,
        worker: str,
        units: Sequence[Unit],
        *,
        thriving: Collection[Unit] = (),
        alone: bool = False,
    ) -> list[Lease]:
        """Renew, take a fair share, give up what exceeds it; return what is held now.

        Args:
            worker: the one that asks.
            units: all there are.
            thriving: those on which this worker has applied something since the last time.
            alone: share with nobody; this worker was elected otherwise.
        """

    async def attempt(self, lease: Lease, position: Position | None) -> int:
        """Note durably that the record at a position is tried now; return how often it was.

        None for a try that has ended, well or not: only those which end with the process count.
        Returns 0 where the lease is no longer held.
        """

    async def outbid(self, worker: str, lease: Lease, token: int) -> Lease | None:
        """Renew a held lease with a token above `token`; None where it is no longer held.

        The read store may know a higher token than the ledger, when the ledger was restored.
        """

    async def seize(self, worker: str, units: Sequence[Unit]) -> list[Lease]:
        """Take all of them at once, for a worker that was elected otherwise.

        What a reset holds (see `core.leases.RESETS`) stays with it until it is free or runs out.
        """

    async def leave(self, worker: str) -> None:
        """Give everything back."""


class Parked(NamedTuple):
    """A step which has to wait: the poison itself, or one behind it."""

    step: Step
    #: None for a step that only waits its turn.
    error: BaseException | None
    #: For a poison, see `core.folding.Poison.base`; what waits, waits for the one before it, and for
    #: what the poison has waited for, which stays so if that is given up.
    base: str = ""


class Waiting(NamedTuple):
    """A parked event, read back."""

    record: Record
    #: The position of the record's partition which its document must have reached.
    base: str


class Hold(NamedTuple):
    """One parking of a document."""

    #: No other parking has it.
    name: str
    #: The event that failed: it waits, and so does everything after it.
    since: Position


#: Events that a parking tells at once, at most, and their bytes, about.
PAGE = 500
PAGE_BYTES = 1024 * 1024


class Parking(Protocol):
    """Documents which cannot move on, with their events in order."""

    async def parked(self, unit: Unit) -> Mapping[str, Hold]:
        """The unit's parked documents, by key."""

    async def park(
        self, unit: Unit, steps: Sequence[Parked], token: int | None = None
    ) -> Mapping[str, Hold]:
        """Put steps away durably; putting one away twice is putting it away once.

        A step without an error is refused when its document is not parked any more.

        Args:
            unit: where.
            steps: what.
            token: of the lease under which they failed; None for no lease.

        Raises:
            LeaseLostError: a newer owner works on the unit; nothing was parked.

        Returns:
            the holds of these steps' documents, by key; the keys which lack were free again:
            fold their steps after all.
        """

    async def retried(
        self, unit: Unit, until: Position, after: tuple[str, Position] | None = None
    ) -> Sequence[tuple[str, Waiting]]:
        """Events up to a position which were applied by a retry, lately, each with its document's key.

        By key, and in order. A read store that went back in time may lack them, and its checkpoint will not bring them.
        They come in pages of bounded size, which may end in the middle of a document.

        Args:
            unit: where.
            until: the position.
            after: key and position of the last one of the page before; None for the first page.

        Returns:
            a page; nothing where no more are to come.
        """
