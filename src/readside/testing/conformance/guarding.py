"""What every store has to pass for batches that come too late, too often, or in two halves."""

from __future__ import annotations

import asyncio

import pytest

from readside.core.errors import UnavailableError
from readside.core.folding import Batch, Stored, Write
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Store
from readside.ports.traits import Promise
from readside.testing.conformance.ground import StoreGround, checkpoint, positions


class Guarding(StoreGround):
    """Checkpoints fence, and documents are compared before they are set."""

    @pytest.mark.parametrize(
        "expected",
        [
            None,
            checkpoint(1, token=2),
            checkpoint(2),
            checkpoint(1, offset="log:7"),
            checkpoint(1)._replace(position=Position(2, 1, 1)),
        ],
    )
    async def test_another_checkpoint_fences(
        self, store: Store, projection: str, expected: Checkpoint | None
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        late = Batch(
            projection,
            0,
            expected,
            checkpoint(9),
            (Write("x", positions(1), positions(9), self.doc("9")),),
        )
        assert await store.apply(late) is Outcome.FENCED
        assert await store.load(projection, ["x"]) == [Stored(self.doc("1"), positions(1))]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}

    async def test_a_missing_checkpoint_fences(self, store: Store, projection: str) -> None:
        batch = Batch(projection, 0, checkpoint(1), checkpoint(2), ())
        assert await store.apply(batch) is Outcome.FENCED
        assert dict(await store.checkpoints(projection, [0])) == {}

    async def test_a_changed_document_conflicts_and_nothing_is_half_applied(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        batch = Batch(
            projection,
            0,
            checkpoint(1),
            checkpoint(2),
            (
                Write("y", "", positions(2), self.doc("2")),
                Write("x", "", positions(2), self.doc("2")),
            ),
        )
        assert await store.apply(batch) is Outcome.CONFLICT
        assert await store.load(projection, ["x", "y"]) == [
            Stored(self.doc("1"), positions(1)),
            Stored(None, ""),
        ]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}

    async def test_a_conflict_at_the_end_of_a_large_batch_undoes_all(
        self, store: Store, projection: str
    ) -> None:
        self._needs_atomicity()
        writes = [Write(str(n), "", positions(1), self.doc("1")) for n in range(self.many)]
        writes.append(Write("last", positions(7), positions(8), self.doc("8")))
        assert await self._put(store, projection, *writes) is Outcome.CONFLICT
        keys = [write.key for write in writes]
        assert set(await store.load(projection, keys)) == {Stored(None, "")}
        assert dict(await store.checkpoints(projection, [0])) == {}

    async def test_fenced_is_said_before_conflict(self, store: Store, projection: str) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        batch = Batch(
            projection, 0, None, checkpoint(2), (Write("x", "", positions(2), self.doc("2")),)
        )
        assert await store.apply(batch) is Outcome.FENCED

    async def test_applied_twice_is_refused(self, store: Store, projection: str) -> None:
        batch = Batch(
            projection, 0, None, checkpoint(1), (Write("x", "", positions(1), self.doc("1")),)
        )
        assert await store.apply(batch) is Outcome.APPLIED
        assert await store.apply(batch) is Outcome.FENCED

    async def test_of_many_at_once_one_is_applied(self, store: Store, projection: str) -> None:
        self._needs_atomicity()
        batches = [
            Batch(
                projection,
                0,
                None,
                checkpoint(n),
                (Write("x", "", positions(n), self.doc(str(n))),),
            )
            for n in range(1, 9)
        ]
        outcomes = await asyncio.gather(*(store.apply(batch) for batch in batches))
        assert sorted(outcome.value for outcome in outcomes) == ["applied", *["fenced"] * 7]
        winner = 1 + outcomes.index(Outcome.APPLIED)
        assert await store.load(projection, ["x"]) == [
            Stored(self.doc(str(winner)), positions(winner))
        ]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(winner)}

    async def test_a_batch_that_breaks_off_leaves_documents_that_say_so(
        self, store: Store, projection: str
    ) -> None:
        if self.traits.applies_atomically is not Promise.NEVER:
            pytest.skip("this store applies a batch whole or not at all")
        batch = Batch(
            projection,
            0,
            None,
            checkpoint(1),
            tuple(Write(k, "", positions(1), self.doc(k)) for k in "abc"),
        )
        await self.interrupt(2)
        with pytest.raises(UnavailableError):
            await store.apply(batch)
        assert await store.load(projection, ["a", "b", "c"]) == [
            Stored(self.doc("a"), positions(1)),
            Stored(self.doc("b"), positions(1)),
            Stored(None, ""),
        ]
        assert dict(await store.checkpoints(projection, [0])) == {}
        assert await store.apply(batch) is Outcome.CONFLICT
        assert await store.apply(batch._replace(writes=batch.writes[2:])) is Outcome.APPLIED
        assert (await store.read(projection, ["a", "b", "c"])).documents == [
            self.doc("a"),
            self.doc("b"),
            self.doc("c"),
        ]

    async def test_a_document_fed_by_two_partitions_is_guarded_for_both(
        self, store: Store, projection: str
    ) -> None:
        one, two = positions(1), f"{positions(1)};1:{Position(1, 5, 1).encode()}"
        await store.apply(
            Batch(projection, 0, None, checkpoint(1), (Write("x", "", one, self.doc("1")),))
        )
        late = Batch(projection, 1, None, checkpoint(5), (Write("x", "", two, self.doc("2")),))
        assert await store.apply(late) is Outcome.CONFLICT
        again = late._replace(writes=(Write("x", one, two, self.doc("2")),))
        assert await store.apply(again) is Outcome.APPLIED
        assert await store.load(projection, ["x"]) == [Stored(self.doc("2"), two)]

    async def test_neighbouring_positions_are_told_apart(
        self, store: Store, projection: str
    ) -> None:
        # Above 2**53 a floating-point number would take the two for the same.
        low, high = (f"0:{Position(1, 2**60 + n, 1).encode()}" for n in (0, 1))
        await self._put(store, projection, Write("x", "", low, self.doc("1")))
        assert (
            await self._put(store, projection, Write("x", high, positions(9), self.doc("2")), nth=2)
            is Outcome.CONFLICT
        )

    async def test_a_checkpoint_that_stays_fences_too(self, store: Store, projection: str) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        write = Write("x", positions(1), positions(2), self.doc("2"))
        batch = Batch(projection, 0, checkpoint(1), checkpoint(1), (write,))
        assert await store.apply(batch) is Outcome.APPLIED
        assert await store.load(projection, ["x"]) == [Stored(self.doc("2"), positions(2))]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}
        await store.reset(projection, {0: checkpoint(1, token=2)})
        again = batch._replace(writes=(write._replace(expected=""),))
        assert await store.apply(again) is Outcome.FENCED
        assert await store.load(projection, ["x"]) == [Stored(None, "")]
