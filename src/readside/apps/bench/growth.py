"""Whether an event costs the same where there is more of everything."""

from __future__ import annotations

from typing import NamedTuple

from readside.apps.bench.backlog import Tell, ground
from readside.apps.bench.drain import drain
from readside.apps.bench.limit import limit
from readside.apps.bench.places import Places
from readside.apps.bench.plan import Backlog


class Grown(NamedTuple):
    """One shape of a backlog, drained."""

    name: str
    shape: Backlog
    limit: float
    #: Events a second, by path.
    speeds: dict[str, float]
    #: The largest peak of a process of readside, by path.
    peak_memory_mb: dict[str, float | None]
    wrong: int


def shapes(base: Backlog) -> dict[str, Backlog]:
    """What is compared with the first of them; fewer events where each weighs more."""
    events = base.events
    fewer, few = max(1000, events // 5), max(1000, events // 15)
    return {
        "as it is": base,
        "10 times the events": base._replace(events=10 * events),
        "10 times the events and documents": base._replace(
            events=10 * events, documents=10 * base.documents
        ),
        "10 times the rows in the outbox": base._replace(older=10 * events),
        "64 partitions": base._replace(partitions=64),
        "10 projections": base._replace(events=fewer, documents=fewer // 3, projections=10),
        "1 kB": base._replace(payload=1000),
        "32 kB": base._replace(events=few, documents=few // 3, payload=32_000),
        "1 event a transaction": base._replace(per_transaction=1),
        "1,000 events a transaction": base._replace(per_transaction=1000),
    }


async def grown(where: Places, name: str, shape: Backlog, tell: Tell) -> Grown:
    """Drain one shape through every path, once."""
    speeds: dict[str, float] = {}
    peaks: dict[str, float | None] = {}
    wrong = 0
    async with ground(where, shape) as earth:
        filled = await earth.fill(tell)
        most = await limit(earth, filled)
        for path, broker in where.brokers("direct", "nats").items():
            found = await drain(earth, broker, tell)
            speeds[path] = found.events_per_second
            own = [cost.peak_memory_mb for name, cost in found.costs.items() if name in _OWN]
            peaks[path] = max((one for one in own if one is not None), default=None)
            wrong += found.wrong
    return Grown(name, shape, most, speeds, peaks, wrong)


_OWN = {"direct", "relay", "projector"}
