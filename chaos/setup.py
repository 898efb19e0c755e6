"""Which capture, broker, store and mode a run is about, and what is there to be broken in each."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from readside.core.projection import Mode

BrokerName = Literal["nats", "direct"]
CaptureName = Literal["replication", "polling"]
StoreName = Literal["valkey", "postgres"]

#: Every mode that a projection can have.
MODES: tuple[str, ...] = get_args(Mode)
#: Name of the setting -> the server which it means, where they differ.
_SERVERS = {"postgres": "tables"}


class Setup(NamedTuple):
    """One combination."""

    broker: BrokerName = "nats"
    capture: CaptureName = "replication"
    store: StoreName = "valkey"
    mode: str = "async"

    @property
    def inline(self) -> bool:
        """Whether commands fold: there are no processes of readside then, no broker, no read store."""
        return self.mode == "inline"

    @property
    def read_store(self) -> str:
        """The server with the documents."""
        return "postgres" if self.inline else _SERVERS.get(self.store, self.store)

    @property
    def servers(self) -> tuple[str, ...]:
        """All servers."""
        if self.inline:
            return ("postgres",)
        return ("postgres", self.read_store, *(["nats"] if self.broker == "nats" else []))

    @property
    def targets(self) -> frozenset[str]:
        """What a fault can strike."""
        others = {"writer", "events", "session", *self.servers}
        return frozenset(others if self.inline else {*others, "relay", "projector", "capture"})

    @property
    def words(self) -> frozenset[str]:
        """What a kind of fault may be only for."""
        return frozenset({self.capture, self.mode, self.read_store, *self.servers})

    @property
    def chance(self) -> str:
        """What plans depend on besides the seed; the first runs that there were keep their plans."""
        return self.broker if self == Setup(self.broker) else " ".join(self)

    def __str__(self) -> str:
        return (
            "inline" if self.inline else f"{self.broker}, {self.capture}, {self.store}, {self.mode}"
        )
