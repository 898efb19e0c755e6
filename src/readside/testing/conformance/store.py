"""What every store has to pass."""

from __future__ import annotations

import asyncio

import pytest

from readside.core.errors import RefusedError, UnwritableError
from readside.core.folding import Batch, Stored, Write
from readside.core.position import Position
from readside.ports.store import Outcome, Reading, Store
from readside.ports.traits import Promise
from readside.testing.conformance.ground import checkpoint, positions
from readside.testing.conformance.guarding import Guarding
from readside.testing.conformance.overwriting import Overwriting
from readside.testing.conformance.telling import Telling

#: Keys that a careless adapter takes apart, folds, trims or confuses.
KEYS = [
    "1",
    "a:b",
    "a b",
    "ключ",
    "鍵",
    "🔑",
    "K",
    "k",
    "{x}",
    "a*",
    "0",
    "%41",
    "'",
    '"',
    "\\",
    "-",
]


class StoreContract(Guarding, Overwriting, Telling):
    """Documents and checkpoints, guarded by compare-and-set. Each test has a projection of its own."""

    async def test_it_says_what_it_promises(self, store: Store) -> None:
        assert store.traits == self.traits
        assert all(isinstance(answer, Promise) for answer in self.traits)

    async def test_nothing_is_there_at_first(self, store: Store, projection: str) -> None:
        assert dict(await store.checkpoints(projection, [0, 1])) == {}
        assert await store.load(projection, ["x", "y"]) == [Stored(None, ""), Stored(None, "")]
        assert await store.read(projection, ["x"]) == Reading([None], "", {}, frozenset())

    async def test_no_keys_are_no_documents(self, store: Store, projection: str) -> None:
        assert await store.load(projection, []) == []
        assert await store.read(projection, []) == Reading([], "", {}, frozenset())
        assert dict(await store.checkpoints(projection, [])) == {}

    async def test_documents_and_checkpoint_come_together(
        self, store: Store, projection: str
    ) -> None:
        write = Write("x", "", positions(1), self.doc('{"a":1}'))
        assert await self._put(store, projection, write) is Outcome.APPLIED
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}
        assert await store.load(projection, ["x"]) == [Stored(self.doc('{"a":1}'), positions(1))]
        assert await store.read(projection, ["x"]) == Reading(
            [self.doc('{"a":1}')], "", {}, frozenset()
        )

    async def test_a_document_is_plain_json_under_a_plain_key(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("42", "", positions(1), self.doc('{"a":"ä"}')))
        assert await self.peek(f"{projection}:42") == self.doc('{"a":"ä"}')
        assert await self.peek(f"{projection}:43") is None

    async def test_what_one_connection_wrote_another_reads(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("{}")))
        other = await self.make()
        try:
            assert await other.read(projection, ["x"]) == Reading(
                [self.doc("{}")], "", {}, frozenset()
            )
            assert dict(await other.checkpoints(projection, [0])) == {0: checkpoint(1)}
        finally:
            await other.close()

    async def test_documents_come_in_the_order_of_the_keys(
        self, store: Store, projection: str
    ) -> None:
        await self._put(
            store, projection, *(Write(k, "", positions(1), self.doc(f'"{k}"')) for k in "abc")
        )
        wanted = ["c", "nobody", "a", "c"]
        documents = [self.doc('"c"'), None, self.doc('"a"'), self.doc('"c"')]
        assert (await store.read(projection, wanted)).documents == documents
        assert [stored.document for stored in await store.load(projection, wanted)] == documents

    async def test_every_key_is_its_own(self, store: Store, projection: str) -> None:
        documents = [self.doc(f"[{number}]") for number in range(len(KEYS))]
        writes = [
            Write(k, "", positions(1), document)
            for k, document in zip(KEYS, documents, strict=True)
        ]
        assert await self._put(store, projection, *writes) is Outcome.APPLIED
        assert (await store.read(projection, KEYS)).documents == documents
        assert await store.load(projection, KEYS) == [Stored(d, positions(1)) for d in documents]
        bare = await store.load(projection, KEYS, documents=False)
        assert [stored.positions for stored in bare] == [positions(1)] * len(KEYS)
        assert all(one.document in (None, d) for one, d in zip(bare, documents, strict=True))

    async def test_projections_do_not_see_each_other(self, store: Store, projection: str) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("{}")))
        assert await store.load(f"{projection}-2", ["x"]) == [Stored(None, "")]
        assert dict(await store.checkpoints(f"{projection}-2", [0])) == {}

    async def test_partitions_have_checkpoints_of_their_own(
        self, store: Store, projection: str
    ) -> None:
        for number in (0, 1, 255):
            batch = Batch(projection, number, None, checkpoint(number + 1), ())
            assert await store.apply(batch) is Outcome.APPLIED
        assert dict(await store.checkpoints(projection, [255, 7, 1])) == {
            1: checkpoint(2),
            255: checkpoint(256),
        }

    async def test_the_checkpoint_alone_moves(self, store: Store, projection: str) -> None:
        first = Batch(projection, 0, None, checkpoint(1, offset="log 1:77"), ())
        assert await store.apply(first) is Outcome.APPLIED
        found = await store.checkpoints(projection, [0])
        assert found[0] == checkpoint(1, offset="log 1:77")
        moved = found[0]._replace(position=Position(0xFFFFFFFF, 2**64 - 1, 2**32 - 1), token=2**40)
        assert await store.apply(Batch(projection, 0, found[0], moved, ())) is Outcome.APPLIED
        assert dict(await store.checkpoints(projection, [0])) == {0: moved}

    async def test_documents_alone_are_written_where_no_checkpoint_is_given(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        batch = Batch(
            projection, 0, None, None, (Write("x", positions(1), positions(2), self.doc("2")),)
        )
        assert await store.apply(batch) is Outcome.APPLIED
        assert await store.apply(batch) is Outcome.CONFLICT
        assert await store.load(projection, ["x"]) == [Stored(self.doc("2"), positions(2))]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}

    async def test_a_deleted_document_remembers_its_positions(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        gone = Write("x", positions(1), positions(2), None)
        assert await self._put(store, projection, gone, nth=2) is Outcome.APPLIED
        assert await store.load(projection, ["x"]) == [Stored(None, positions(2))]
        assert await self.peek(f"{projection}:x") is None
        old = Write("x", positions(1), positions(2), self.doc("old"))
        assert await self._put(store, projection, old, nth=3) is Outcome.CONFLICT
        back = Write("x", positions(2), positions(3), self.doc("new"))
        assert await self._put(store, projection, back, nth=3) is Outcome.APPLIED
        assert await self.peek(f"{projection}:x") == self.doc("new")

    async def test_deleting_what_never_was_is_remembered(
        self, store: Store, projection: str
    ) -> None:
        gone = Write("x", "", positions(1), None)
        assert await self._put(store, projection, gone) is Outcome.APPLIED
        assert await store.load(projection, ["x"]) == [Stored(None, positions(1))]

    async def test_thousands_of_documents_at_once(self, store: Store, projection: str) -> None:
        keys = [f"ключ-{n}" for n in range(self.many)]
        writes = [
            Write(k, "", positions(1), None if n % 3 == 0 else self.doc(f'{{"n":{n}}}'))
            for n, k in enumerate(keys)
        ]
        assert await self._put(store, projection, *writes) is Outcome.APPLIED
        found = await store.load(projection, keys)
        assert found == [Stored(write.document, positions(1)) for write in writes]
        assert (await store.read(projection, keys)).documents == [w.document for w in writes]

    async def test_a_big_document_of_any_bytes(self, store: Store, projection: str) -> None:
        big = self.blob()
        small = self.doc('""')
        writes = [Write("big", "", positions(1), big), Write("small", "", positions(1), small)]
        assert await self._put(store, projection, *writes) is Outcome.APPLIED
        assert (await store.read(projection, ["small", "big"])).documents == [small, big]
        assert await self.peek(f"{projection}:big") == big

    async def test_what_can_never_be_written_is_named_and_nothing_is_written(
        self, store: Store, projection: str
    ) -> None:
        document = self.impossible()
        if document is None:
            pytest.skip("this store holds any document")
        good = [Write(str(n), "", positions(1), self.doc(str(n))) for n in range(20)]
        bad = [Write(k, "", positions(1), document) for k in ("x", "y")]
        with pytest.raises(UnwritableError) as caught:
            await self._put(store, projection, *good, bad[0], bad[1])
        assert set(caught.value.documents) == {"x", "y"}
        assert all(caught.value.documents.values())
        keys = [write.key for write in (*good, *bad)]
        assert set(await store.load(projection, keys)) == {Stored(None, "")}
        assert dict(await store.checkpoints(projection, [0])) == {}
        assert await self._put(store, projection, *good) is Outcome.APPLIED
        late = Batch(projection, 0, None, checkpoint(2), (bad[0],))
        assert await store.apply(late) is Outcome.FENCED  # who comes too late hears nothing else

    async def test_nobody_else_writes_under_the_name_of_a_projection(
        self, store: Store, projection: str
    ) -> None:
        await store.open("one_app", [projection])
        await store.open("one_app", [projection])
        other = await self.make()
        try:
            with pytest.raises(RefusedError, match=projection):
                await other.open("another_app", [projection])
        finally:
            await other.close()

    async def test_an_interrupted_call_gives_nobody_a_wrong_answer(
        self, store: Store, projection: str
    ) -> None:
        await self._put(store, projection, *(Write(k, "", positions(1), self.doc(k)) for k in "ab"))
        for turns in range(12):
            task = asyncio.ensure_future(store.read(projection, ["a"]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert (await store.read(projection, ["b"])).documents == [self.doc("b")]

    async def test_what_was_applied_survives_the_server(
        self, store: Store, projection: str
    ) -> None:
        if self.traits.durable is not Promise.KEPT:
            pytest.skip("this store does not promise to be durable on its own")
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        await self.lose()
        assert await store.load(projection, ["x"]) == [Stored(self.doc("1"), positions(1))]
        assert dict(await store.checkpoints(projection, [0])) == {0: checkpoint(1)}

    async def test_what_was_applied_does_not_survive_the_server(
        self, store: Store, projection: str
    ) -> None:
        if self.traits.durable is not Promise.NEVER:
            pytest.skip("this store can be durable")
        await self._put(store, projection, Write("x", "", positions(1), self.doc("1")))
        await self.lose()
        assert await store.load(projection, ["x"]) == [Stored(None, "")]
        assert dict(await store.checkpoints(projection, [0])) == {}
