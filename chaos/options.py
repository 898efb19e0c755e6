"""What a run is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from chaos.setup import MODES, BrokerName, CaptureName, Setup, StoreName

#: Scenario -> what its argument is, and what it shows.
SCENARIOS = {
    "frozen": ("SECONDS", "a worker is frozen for so long while another takes over"),
    "huge": ("EVENTS", "so many events in one transaction, and the memory of every process"),
    "lost": ("HOW", "the slot is dropped or invalidated, and the projections given up"),
    "deadly": ("HOW", "handlers which exit or hang, and events which nobody can decode"),
}
_WAYS = {"lost": ("dropped", "invalidated"), "deadly": ("exit", "hang")}


@dataclass(frozen=True)
class Options:
    """One run; the same options give the same plan of faults."""

    seconds: float
    seed: int
    broker: BrokerName
    capture: CaptureName
    store: StoreName
    mode: str
    #: Transactions a second, over all writers.
    rate: float
    #: Only these kinds of faults; all that fit where empty.
    only: tuple[str, ...]
    json: bool
    keep: Path | None
    #: A directory which stands before the installed readside in the children's path (mutants).
    code: Path | None
    #: Seconds that the read side may take to catch up when everything is healed.
    patience: float
    #: A standing scenario instead of a run by chance, and its argument.
    scenario: str = ""
    amount: float = 0.0
    way: str = ""
    #: Bytes of ballast in each event of the scenario "huge".
    ballast: int = 0
    #: Whether the relay puts records that are published together into one message.
    frames: bool = False

    @property
    def setup(self) -> Setup:
        """The combination that the run is about."""
        return Setup(self.broker, self.capture, self.store, self.mode)


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--source", choices=get_args(CaptureName), help="default: replication")
    parser.add_argument("--broker", choices=get_args(BrokerName), help="default: nats")
    parser.add_argument("--store", choices=get_args(StoreName), help="default: valkey")
    parser.add_argument("--frames", action="store_true", help="the broker is NATS with frames=on")
    parser.add_argument(
        "--mode", choices=MODES, default="async",
        help="of the projections; inline knows no other source, broker or store",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=60.0, help="transactions a second")
    parser.add_argument("--only", default="", help="fault kinds, separated by commas")
    parser.add_argument("--json", action="store_true", help="nothing but the report on stdout")
    parser.add_argument("--keep-artifacts", type=Path, default=None, metavar="DIR")
    parser.add_argument("--code", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--patience", type=float, default=90.0, help=argparse.SUPPRESS)
    parser.add_argument("--ballast", type=int, default=0, help=argparse.SUPPRESS)
    for name, words in SCENARIOS.items():
        parser.add_argument(f"--{name}", metavar=words[0], help=words[1], choices=_WAYS.get(name))
    found = parser.parse_args(arguments)
    scenario = next((name for name in SCENARIOS if getattr(found, name) is not None), "")
    argument = getattr(found, scenario) if scenario else ""
    setup = _setup(parser, found, scenario)
    return Options(
        found.seconds,
        found.seed,
        *setup,
        found.rate,
        tuple(kind for kind in found.only.split(",") if kind),
        found.json,
        found.keep_artifacts,
        found.code,
        found.patience,
        scenario,
        float(argument) if argument.replace(".", "", 1).isdigit() else 0.0,
        argument,
        found.ballast,
        found.frames,
    )


def _setup(parser: argparse.ArgumentParser, found: argparse.Namespace, scenario: str) -> Setup:
    if found.mode == "inline":
        if found.source or found.broker or found.store:
            parser.error("--mode inline has neither --source nor --broker nor --store")
        setup = Setup("direct", "replication", "postgres", "inline")
    else:
        setup = Setup(
            found.broker or "nats",
            found.source or "replication",
            found.store or "valkey",
            found.mode,
        )
    if found.frames and setup.broker != "nats":
        parser.error("--frames is of --broker nats")
    if scenario and setup != Setup(setup.broker):
        parser.error(f"--{scenario} is told of replication, Valkey and mode async only")
    return setup
