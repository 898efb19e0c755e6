"""The kinds of faults, and which of them a setup has."""

from __future__ import annotations

from typing import NamedTuple

from chaos.setup import Setup


class Kind(NamedTuple):
    """One kind of fault."""

    name: str
    #: What it strikes; two faults on the same target do not overlap.
    targets: tuple[str, ...]
    #: Bounds of its duration.
    shortest: float
    longest: float
    #: Only where one of these is (words of a setup); empty: everywhere.
    where: tuple[str, ...] = ()
    #: Takes records out of the broker's log, or documents out of the read store.
    wipes: str = ""
    #: What it touches besides its target: nobody else may heal that, or break it, meanwhile.
    touches: tuple[str, ...] = ()
    #: Seconds that it may need beyond its duration, for whatever it waits for.
    waits: float = 0.0
    #: Ends processes of readside.
    kills: bool = False


#: The read store is called Valkey here; `fitting` gives it its name in a setup.
_STORE = "valkey"
_LINKS = ("postgres", _STORE, "nats")
#: Where processes of readside follow what was committed.
_FOLLOWED = ("async", "wait")

_ROLES = ("relay", "projector")

_LOSES = ("messages_lost", "stream_purged", "stream_deleted")

#: They need a backlog, and that nobody but the relay lives on.
_STREAM_WIPES = tuple(
    Kind(
        name, ("nats",), 0.5, 1.0, where=("nats",), wipes="broker",
        touches=(_STORE, "postgres", *_ROLES), waits=5.0,
        kills=True,
    )
    for name in _LOSES
)  # fmt: skip

#: A poller is frozen until another has taken over; both need PostgreSQL and nobody else to die.
_POLLERS = tuple(
    Kind(
        name, ("relay",), 6.0, 8.0, where=("polling",),
        touches=("postgres", "link postgres", "capture", "projector"), waits=5.0,
    )
    for name in ("tick_frozen", "batch_frozen")
)  # fmt: skip

KINDS: tuple[Kind, ...] = (
    Kind("relay_kill", ("relay",), 0.2, 2.0, kills=True),
    Kind("relay_pause", ("relay",), 1.0, 14.0),
    Kind("projector_kill", ("projector",), 0.2, 6.0, kills=True),
    Kind("projector_pause", ("projector",), 1.0, 9.0),
    Kind("graceful_restart", ("relay", "projector"), 0.0, 1.0, kills=True),
    Kind("writer_kill", ("writer",), 0.2, 2.0),
    Kind("writer_pause", ("writer",), 0.5, 3.0),
    Kind("postgres_kill", ("postgres",), 0.1, 1.5),
    Kind("postgres_pause", ("postgres",), 0.5, 3.0),
    Kind("valkey_kill", (_STORE,), 0.1, 2.0),
    Kind("valkey_pause", (_STORE,), 0.5, 4.0),
    Kind("nats_kill", ("nats",), 0.1, 2.0, where=("nats",)),
    Kind("nats_pause", ("nats",), 0.5, 4.0, where=("nats",)),
    Kind("link_cut", _LINKS, 0.0, 0.0),
    Kind("link_refuse", _LINKS, 0.5, 2.0),
    Kind("link_delay", _LINKS, 2.0, 5.0),
    Kind("link_blackhole", _LINKS, 2.0, 8.0),
    Kind("link_mute", _LINKS, 0.3, 1.0),
    Kind("node_isolated", ("projector", "relay"), 2.0, 9.0),
    *_STREAM_WIPES,
    Kind("stream_rolled_back", ("nats",), 0.0, 0.0, where=("nats",), wipes="broker"),
    Kind("store_flushed", (_STORE,), 0.0, 0.0, wipes="store"),
    Kind("store_rolled_back", (_STORE,), 0.0, 0.0, wipes="store"),
    Kind("poison_raises", ("events",), 4.0, 9.0),
    Kind("poison_unwritable", ("events",), 4.0, 9.0),
    Kind("poison_undecodable", ("events",), 0.0, 0.0, where=_FOLLOWED),
    # What follows came later, and only where it came with something new: so older plans stay as they were.
    Kind("long_transaction", ("session",), 3.0, 9.0, where=("polling",)),
    Kind("long_transaction", ("session",), 1.0, 3.0, where=("inline",)),
    Kind("backends_ended", ("postgres",), 0.0, 0.0, where=("polling", "inline")),
    Kind("backends_ended", ("tables",), 0.0, 0.0, where=("tables",)),
    Kind("table_locked", ("tables",), 1.0, 4.0, where=("tables",)),
    Kind("table_locked", ("postgres",), 0.5, 2.0, where=("inline",)),
    Kind("writer_restart", ("writer",), 0.0, 1.0, where=("inline",)),
    *_POLLERS,
    # Once in a run: another can only follow when all has settled that was before.
    Kind("capture_changed", ("capture",), 0.0, 0.0, where=("polling",), wipes="capture"),
)


def fitting(setup: Setup) -> list[Kind]:
    """The kinds that a setup has, with the names of its servers."""
    return [
        kind._replace(targets=targets)
        for kind in (_named(kind, setup) for kind in KINDS)
        if (not kind.where or setup.words.intersection(kind.where))
        and (targets := tuple(target for target in kind.targets if target in setup.targets))
    ]


def _named(kind: Kind, setup: Setup) -> Kind:
    if setup.inline:
        return kind
    name, read_store = kind.name, setup.read_store
    if _STORE in kind.targets and name.startswith(_STORE):
        name = read_store + name.removeprefix(_STORE)
    targets, touches = (
        tuple(read_store if one == _STORE else one for one in places)
        for places in (kind.targets, kind.touches)
    )
    return kind._replace(name=name, targets=targets, touches=touches)
