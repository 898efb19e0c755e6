from __future__ import annotations

import pytest

from readside.adapters.memory.store import Library, MemoryStore, PiecemealStore
from readside.testing.conformance.store import StoreContract


class TestMemoryStore(StoreContract):
    traits = MemoryStore.traits

    @pytest.fixture(autouse=True)
    def server(self):
        self.library = Library()

    async def make(self):
        store = MemoryStore(self.library)
        await store.open("app")
        return store

    async def peek(self, name):
        return self.library.shelves.documents.get(name)

    async def lose(self):
        self.library.wipe()


class TestPiecemealStore(TestMemoryStore):
    traits = PiecemealStore.traits

    async def make(self):
        store = PiecemealStore(self.library)
        await store.open("app")
        return store

    async def interrupt(self, after):
        self.library.interrupt(after)
