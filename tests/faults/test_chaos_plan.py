"""A chaos run must show certain effects; so its plan must hold what has them, whatever the seed."""

from __future__ import annotations

import pytest
from chaos.kinds import KINDS, fitting
from chaos.options import parse
from chaos.plan import expected, make_plan, regime, steady_from
from chaos.setup import Setup

_FOLLOWED = tuple(
    Setup(broker, capture, store)
    for broker in ("nats", "direct")
    for capture in ("replication", "polling")
    for store in ("valkey", "postgres")
)
_INLINE = Setup("direct", "replication", "postgres", "inline")
_SETUPS = (*_FOLLOWED, _INLINE)
#: Any of them has the effect; what a poller does not show in the plan is asked for again at its end.
_CAUSES = {
    "connections_cut": {"link_cut", "link_refuse", "link_mute"},
    "retries": {"valkey_kill", "tables_kill", "postgres_kill", "link_cut"},
    "leases_moved": {"zombie"},
    "writes_fenced": {"zombie"},
    "documents_parked": {"poison_raises", "poison_unwritable", "poison_undecodable"},
    "holes_asked_for": {"messages_lost", "valkey_kill", "tables_kill", "backends_ended"},
    "resends": {"messages_lost", "valkey_kill", "tables_kill", "backends_ended"},
    "duplicates_skipped": {"messages_lost", "valkey_kill", "tables_kill", "backends_ended"},
    "polls_refused": {"capture_changed"},
    "pollers_changed": {"capture_changed"},
    "commands_failed": {"postgres_kill", "backends_ended"},
}
_named = pytest.mark.parametrize("setup", _SETUPS, ids=str)
_followed = pytest.mark.parametrize("setup", _FOLLOWED, ids=str)


@_named
@pytest.mark.parametrize("seconds", [45, 60, 300])
def test_every_plan_holds_what_has_the_effects(setup: Setup, seconds: int) -> None:
    for seed in range(50):
        plan = make_plan(seconds, seed, setup)
        kinds = {fault.kind for fault in plan}
        for effect in expected(seed, setup):
            assert kinds & _CAUSES[effect], (seed, effect)
        if setup.broker == "nats" and "broker" in regime(seed, setup).wipes:
            assert "messages_lost" in kinds
        assert len(plan) >= seconds / 2, (seed, len(plan))
        assert len(kinds) >= 8, (seed, kinds)


@_named
def test_a_plan_is_a_function_of_its_seed(setup: Setup) -> None:
    assert make_plan(60, 7, setup) == make_plan(60, 7, setup)
    assert make_plan(60, 7, setup) != make_plan(60, 8, setup)


def test_setups_have_plans_of_their_own() -> None:
    plans = {tuple(make_plan(60, 7, setup)) for setup in _SETUPS}
    assert len(plans) == len(_SETUPS)


@_named
def test_only_what_is_there_is_struck(setup: Setup) -> None:
    for seed in range(50):
        for fault in make_plan(60, seed, setup):
            assert fault.target in setup.targets, (seed, fault)


def test_every_kind_is_of_use_somewhere() -> None:
    used = {kind.name for setup in _SETUPS for kind in fitting(setup)}
    assert {kind.name for kind in KINDS} <= used


@_followed
def test_nothing_else_is_broken_while_a_zombie_is_made(setup: Setup) -> None:
    bystanders = {"events", "writer", "session"}
    targets = {kind.name: set(kind.targets) for kind in fitting(setup)}
    for seed in range(50):
        plan = make_plan(60, seed, setup)
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


@_named
def test_a_long_run_ends_without_kills(setup: Setup) -> None:
    killers = {kind.name for kind in KINDS if kind.kills}
    for seed in range(20):
        late = [f for f in make_plan(1200, seed, setup) if f.at >= steady_from(1200)]
        assert late
        assert not killers & {fault.kind for fault in late}


def test_a_run_by_polling_changes_its_capture_once() -> None:
    for setup in _FOLLOWED:
        for seed in range(20):
            changes = [f for f in make_plan(60, seed, setup) if f.kind == "capture_changed"]
            assert len(changes) == (setup.capture == "polling")


@pytest.mark.parametrize(
    ("words", "setup"),
    [
        ("", Setup()),
        ("--broker direct", Setup("direct")),
        ("--source polling --store postgres", Setup("nats", "polling", "postgres")),
        ("--mode inline", _INLINE),
    ],
)
def test_the_command_line_says_which_setup(words: str, setup: Setup) -> None:
    assert parse(words.split()).setup == setup


@pytest.mark.parametrize(
    "words", ["--mode inline --broker nats", "--store postgres --frozen 60", "--mode inline --source polling"]
)  # fmt: skip
def test_what_there_is_not_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words.split())
    assert "--" in capsys.readouterr().err
