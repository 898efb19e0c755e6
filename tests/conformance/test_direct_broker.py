from __future__ import annotations

from readside.adapters.direct.broker import DirectBroker
from readside.testing.conformance.broker import BrokerContract


class TestDirectBroker(BrokerContract):
    traits = DirectBroker.traits

    async def make(self):
        return DirectBroker()
