"""What every adapter of a port has to pass, to be imported by the adapter's own tests.

    from readside.testing.conformance.store import StoreContract

    class TestMyStore(StoreContract):
        traits = MyStore.traits

        async def make(self) -> Store: ...
        async def peek(self, store, name) -> bytes | None: ...

A suite is a class of tests over a few hooks. `make` gives an open adapter; the other hooks look
and act behind the adapter's back, with the vendor's own client. Needs pytest and pytest-asyncio.
"""

from __future__ import annotations

import pytest

_PORTS = ("source", "broker", "store", "ledger", "leases", "parking")
_PARTS = ("guarding", "overwriting", "remembering", "telling")
for _name in (*_PORTS, *_PARTS):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")
