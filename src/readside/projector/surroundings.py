"""What every lane of a projector works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from readside.core.batching import Limits
from readside.core.complaints import Complaints
from readside.ports.broker import Broker
from readside.ports.clock import Clock
from readside.ports.ledger import Leases, Parking, ProjectorLedger
from readside.ports.store import Store

_LIMITS = Limits()


@dataclass(frozen=True)
class Surroundings:
    """Ports and settings; everything in it is shared by the lanes of a process."""

    broker: Broker
    store: Store
    ledger: ProjectorLedger
    parking: Parking
    leases: Leases
    worker: str
    clock: Clock
    #: Shared, so that one broken server is one complaint and not one a partition.
    complaints: Complaints = field(default_factory=Complaints)
    #: Of the records under suspicion one is tried at a time, or a death would convict all of them.
    trial: asyncio.Lock = field(default_factory=asyncio.Lock)
    limits: Limits = _LIMITS
    #: Seconds in which the store brings to disk, and to its replicas, what it was given.
    settle_delay: float = 5.0
