"""What every store has to pass for what it tells beside the documents: parked, halted, begun again."""

from __future__ import annotations

import pytest

from readside.core.errors import FencedError
from readside.core.folding import Batch, Stored, Write
from readside.ports.store import Outcome, Reading, Store
from readside.testing.conformance.ground import StoreGround, checkpoint, positions


class Telling(StoreGround):
    """Readers hear what was parked or halted, until it is taken back or a reset has removed it."""

    async def test_a_parked_document_is_told_to_readers_of_its_partition(
        self, store: Store, projection: str
    ) -> None:
        batch = Batch(projection, 0, None, checkpoint(1), (), parked=(("x y", "p1"), ("z", "p2")))
        assert await store.apply(batch) is Outcome.APPLIED
        assert (await store.read(projection, ["x y", "w"], [0, 1])).parked == {"x y"}
        assert (await store.read(projection, ["x y"], [1])).parked == frozenset()
        assert (await store.read(projection, ["x y"])).parked == frozenset()
        assert dict(await store.parked(projection, 0)) == {"x y": "p1", "z": "p2"}
        assert dict(await store.parked(projection, 1)) == {}
        again = Batch(projection, 1, None, checkpoint(1), (), parked=(("x y", "p3"),))
        assert await store.apply(again) is Outcome.APPLIED
        await store.unpark(projection, 0, "x y", "p9")  # another parking of the same document
        assert (await store.read(projection, ["x y"], [0])).parked == {"x y"}
        await store.unpark(projection, 0, "x y", "p1")
        assert (await store.read(projection, ["x y"], [0])).parked == frozenset()
        assert (await store.read(projection, ["x y"], [1])).parked == {"x y"}

    async def test_documents_and_checkpoints_are_read_together(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        found = await store.read(projection, ["x", "y"], [0, 1])
        assert found.documents == [self.doc("1"), None]
        assert dict(found.checkpoints) == {0: checkpoint(1)}
        assert dict((await store.read(projection, [], [0])).checkpoints) == {0: checkpoint(1)}

    async def test_without_the_documents_it_tells_the_same_of_them(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        behind = Batch(projection, 1, None, checkpoint(1), (), parked=(("x", "p1"),))
        assert await store.apply(behind) is Outcome.APPLIED
        await store.halt(projection, 0, "gone")
        whole = await store.read(projection, ["y", "x"], [0, 1])
        found = await store.read(projection, ["y", "x"], [0, 1], documents=False)
        assert found.parked == whole.parked == {"x"}
        assert (found.halted, found.checkpoints) == (whole.halted, whole.checkpoints)
        assert len(found.documents) == len(whole.documents)
        assert (await store.read(projection, [], [1], documents=False)).parked == frozenset()

    async def test_a_reset_leaves_nothing_but_the_checkpoints_it_is_given(
        self, store: Store, projection: str
    ) -> None:
        writes = [Write(f"x{n}", "", positions(1), self.doc("1")) for n in range(2500)]
        await self._put(store, projection, *writes, Write("gone", "", positions(1), None))
        await store.halt(projection, 0, "wrong")
        assert await store.reset(projection, {0: checkpoint(7, token=2)}) == 2500
        keys = [write.key for write in writes]
        found = await store.read(projection, keys, [0, 1])
        assert found == Reading([None] * 2500, "", {0: checkpoint(7, token=2)}, frozenset())
        assert set(await store.load(projection, [*keys, "gone"])) == {Stored(None, "")}
        await store.reset(projection, None)
        assert dict(await store.checkpoints(projection, [0])) == {}

    async def test_a_reset_that_comes_late_removes_nothing(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        owned = Batch(projection, 0, checkpoint(1), checkpoint(1, token=9), (), (("x", "p1"),))
        assert await store.apply(owned) is Outcome.APPLIED
        before = await store.read(projection, ["x"], [0, 1])
        assert before.parked == {"x"}
        for token in (8, 9):  # an owner may have outbid it by one, in a ledger of before
            begin = checkpoint(7, token=token)
            with pytest.raises(FencedError):
                await store.reset(projection, {1: begin, 0: begin})
            assert await store.read(projection, ["x"], [0, 1]) == before
            assert await store.load(projection, ["x"]) == [Stored(self.doc("1"), positions(1))]
        assert await store.reset(projection, {0: checkpoint(7, token=10)}) == 1

    async def test_halting_is_told_to_readers_and_taken_back(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        await store.halt(projection, 0, "wrong: ключ")
        assert await store.read(projection, ["x"]) == Reading(
            [self.doc("1")], "wrong: ключ", {}, frozenset()
        )
        assert (await store.read(projection, [])).halted == "wrong: ключ"
        await store.halt(projection, 0, "")
        assert await store.read(projection, ["x"]) == Reading([self.doc("1")], "", {}, frozenset())
