"""What every store has to pass."""

from __future__ import annotations

import asyncio

import pytest

from readside.core.errors import FencedError, RefusedError, UnavailableError, UnwritableError
from readside.core.folding import Batch, Stored, Write
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Reading, Store
from readside.ports.traits import Promise
from readside.testing.conformance.ground import checkpoint, positions
from readside.testing.conformance.overwriting import Overwriting

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


class StoreContract(Overwriting):
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

    async def test_the_checkpoint_alone_moves(self, store: Store, projection: str) -> None:
        first = Batch(projection, 0, None, checkpoint(1, offset="log 1:77"), ())
        assert await store.apply(first) is Outcome.APPLIED
        found = await store.checkpoints(projection, [0])
        assert found[0] == checkpoint(1, offset="log 1:77")
        moved = found[0]._replace(position=Position(0xFFFFFFFF, 2**64 - 1, 2**32 - 1), token=2**40)
        assert await store.apply(Batch(projection, 0, found[0], moved, ())) is Outcome.APPLIED
        assert dict(await store.checkpoints(projection, [0])) == {0: moved}

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
