"""A chaos run must show certain effects; so its plan must hold what has them, whatever the seed."""

from __future__ import annotations

from typing import Literal

import pytest
from chaos.plan import KINDS, expected, make_plan, regime, steady_from

Broker = Literal["nats", "direct"]
_BROKERS: tuple[Broker, ...] = ("nats", "direct")
#: Any of them has the effect.
_CAUSES = {
    "connections_cut": {"link_cut", "link_refuse", "link_mute"},
    "retries": {"valkey_kill", "postgres_kill", "link_cut"},
    "leases_moved": {"zombie"},
    "writes_fenced": {"zombie"},
    "documents_parked": {"poison_raises", "poison_unwritable", "poison_undecodable"},
    "holes_asked_for": {"messages_lost", "valkey_kill"},
    "resends": {"messages_lost", "valkey_kill"},
}


@pytest.mark.parametrize("broker", _BROKERS)
@pytest.mark.parametrize("seconds", [45, 60, 300])
def test_every_plan_holds_what_has_the_effects(broker: Broker, seconds: int) -> None:
    for seed in range(200):
        plan = make_plan(seconds, seed, broker)
        kinds = {fault.kind for fault in plan}
        for effect in expected(seed, broker):
            assert kinds & _CAUSES[effect], (seed, effect)
        if broker == "nats" and "broker" in regime(seed, broker).wipes:
            assert "messages_lost" in kinds
        assert len(plan) >= seconds / 2, (seed, len(plan))


@pytest.mark.parametrize("broker", _BROKERS)
def test_a_plan_is_a_function_of_its_seed(broker: Broker) -> None:
    assert make_plan(60, 7, broker) == make_plan(60, 7, broker)
    assert make_plan(60, 7, broker) != make_plan(60, 8, broker)


@pytest.mark.parametrize("broker", _BROKERS)
def test_nothing_else_is_broken_while_a_zombie_is_made(broker: Broker) -> None:
    bystanders = {"events", "writer"}
    targets = {kind.name: set(kind.targets) for kind in KINDS}
    for seed in range(100):
        plan = make_plan(60, seed, broker)
        (zombie,) = [fault for fault in plan if fault.kind == "zombie"]
        during = [
            fault.kind
            for fault in plan
            if fault is not zombie
            and fault.at < zombie.at + zombie.duration
            and fault.at + fault.duration > zombie.at
            and not targets[fault.kind] <= bystanders
        ]
        assert not during, (seed, during)


@pytest.mark.parametrize("broker", _BROKERS)
def test_a_long_run_ends_without_kills(broker: Broker) -> None:
    killers = {kind.name for kind in KINDS if kind.kills}
    for seed in range(20):
        late = [f for f in make_plan(1200, seed, broker) if f.at >= steady_from(1200)]
        assert late
        assert not killers & {fault.kind for fault in late}
