"""What every store has to pass for documents that are written without having been loaded."""

from __future__ import annotations

import pytest

from readside.core.folding import Batch, Stored, Write, precedes
from readside.core.position import Position
from readside.ports.store import Outcome, Store
from readside.ports.traits import Promise
from readside.testing.conformance.ground import StoreGround, checkpoint, positions


def _of(partition: int, epoch: int, lsn: int, ordinal: int) -> str:
    return f"{partition}:{Position(epoch, lsn, ordinal).encode()}"


#: What a document may contain that is not simply older in the same partition; the new one is `positions(5)`.
_OTHERS = {
    "the same": positions(5),
    "a later one": positions(6),
    "a later one by the last digit": _of(0, 1, 5, 2),
    "a later one by a letter": _of(0, 1, 0xA, 0),
    "a later history": _of(0, 2, 1, 1),
    "another partition": _of(1, 1, 1, 1),
    "a partition that begins alike": _of(10, 1, 1, 1),
    "two partitions": f"{positions(1)};{_of(1, 1, 1, 1)}",
    "one out of its turn": f"{positions(1)};+{positions(3)}",
}


class Overwriting(StoreGround):
    """Batches that overwrite."""

    async def _overwrite(
        self, store: Store, projection: str, *writes: Write, nth: int = 5
    ) -> Outcome:
        found = (await store.checkpoints(projection, [0])).get(0)
        return await store.apply(
            Batch(projection, 0, found, checkpoint(nth), writes, overwrites=True)
        )

    async def test_new_and_older_documents_are_overwritten(
        self, store: Store, projection: str
    ) -> None:
        old = [
            Write("older", "", positions(1), self.doc("1")),
            Write("deleted", "", positions(4), None),
            Write("of an earlier history", "", _of(0, 0, 9, 9), self.doc("1")),
            Write("goes", "", positions(2), self.doc("1")),
            Write("stays", "", positions(2), self.doc("1")),
        ]
        assert await self._put(store, projection, *old, nth=4) is Outcome.APPLIED
        keys = ["older", "deleted", "of an earlier history", "new"]
        new = [Write(key, "", positions(5), self.doc(f'"{key}"')) for key in keys]
        gone = Write("goes", "", positions(5), None)
        assert await self._overwrite(store, projection, *new, gone) is Outcome.APPLIED
        assert await store.load(projection, [*keys, "goes", "stays"]) == [
            *(Stored(self.doc(f'"{key}"'), positions(5)) for key in keys),
            Stored(None, positions(5)),
            Stored(self.doc("1"), positions(2)),
        ]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(5)}

    @pytest.mark.parametrize("what", list(_OTHERS))
    async def test_nothing_else_is_overwritten_and_nothing_is_half_applied(
        self, store: Store, projection: str, what: str
    ) -> None:
        assert not precedes(_OTHERS[what], positions(5))
        old = Write("x", "", _OTHERS[what], self.doc("1"))
        assert await self._put(store, projection, old) is Outcome.APPLIED
        writes = [Write(key, "", positions(5), self.doc("5")) for key in "wxy"]
        assert await self._overwrite(store, projection, *writes) is Outcome.CONFLICT
        (found,) = await store.load(projection, ["x"])
        assert found == Stored(self.doc("1"), _OTHERS[what])
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}
        if self.traits.applies_atomically is not Promise.NEVER:
            assert await store.load(projection, ["w", "y"]) == [Stored(None, "")] * 2

    async def test_neighbours_far_out_in_the_log_are_told_apart_and_not_overwritten(
        self, store: Store, projection: str
    ) -> None:
        """Where numbers of 53 bits are not enough."""
        far = [_of(0, 1, 2**63 + 1, 7), _of(0, 1, 2**63 + 1, 8), _of(0, 1, 2**63 + 2, 1)]
        for nth, found in enumerate(far, 1):
            new = Write("x", "", found, self.doc(str(nth)))
            assert await self._overwrite(store, projection, new, nth=nth) is Outcome.APPLIED
        for found in far:
            old = Write("x", "", found, self.doc("0"))
            assert await self._overwrite(store, projection, old) is Outcome.CONFLICT
        assert await store.load(projection, ["x"]) == [Stored(self.doc("3"), far[-1])]

    async def test_another_checkpoint_fences_what_overwrites(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        late = Write("x", "", positions(9), self.doc("9"))
        batch = Batch(projection, 0, checkpoint(2), checkpoint(9), (late,), overwrites=True)
        assert await store.apply(batch) is Outcome.FENCED
        assert await store.load(projection, ["x"]) == [Stored(self.doc("1"), positions(1))]

    async def test_a_batch_without_documents_overwrites_nothing(
        self, store: Store, projection: str
    ) -> None:
        assert await self._overwrite(store, projection) is Outcome.APPLIED
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(5)}

    async def test_thousands_of_documents_are_overwritten_at_once(
        self, store: Store, projection: str
    ) -> None:
        keys = [f"ключ-{n}" for n in range(self.many)]
        old = [Write(key, "", positions(1), self.doc("1")) for key in keys[::2]]
        assert await self._put(store, projection, *old) is Outcome.APPLIED
        new = [
            Write(key, "", positions(5), None if n % 3 == 0 else self.doc(f'{{"n":{n}}}'))
            for n, key in enumerate(keys)
        ]
        assert await self._overwrite(store, projection, *new) is Outcome.APPLIED
        found = await store.load(projection, keys)
        assert found == [Stored(write.document, positions(5)) for write in new]
