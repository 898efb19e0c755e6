"""The report of a run, and what is kept of one that failed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from chaos.app import app
from chaos.effects import commits, tracebacks
from chaos.encore import logs
from chaos.figures import growth
from chaos.options import Options
from chaos.plan import LONG, ROOM, expected
from chaos.rules import Bounds, grown, troubles, unproven
from chaos.timeline import Timeline
from chaos.verdicts import KINDS
from chaos.world import PARTITIONS, World

if TYPE_CHECKING:
    from chaos.run import Outcome

#: Seconds for which WAL may be kept of what was applied, so that a long run can wait for its end.
LET_GO = 30.0
#: Units of the app: its projections in each partition.
_UNITS = len(app.projections) * PARTITIONS


class Report:
    """Everything worth telling."""

    def __init__(
        self,
        options: Options,
        timeline: Timeline,
        outcome: Outcome,
        effects: dict[str, Any],
        world: World,
    ) -> None:
        self.options = options
        self.outcome = outcome
        self.faults: Counter[str] = Counter(kind for _, kind, *_ in timeline.entries)
        felt: Counter[str] = Counter()
        for _, kind, _, effect, _ in timeline.entries:
            felt[kind] += effect
        self.felt = {kind: felt[kind] for kind in sorted(self.faults)}
        self.effects = effects
        self.exits = {
            child.name: child.unexpected for child in world.children() if child.unexpected
        }
        #: Seconds for which PostgreSQL keeps what was applied: a run that wipes everything keeps it all.
        self.settle_delay = world.regime.settle_delay
        self.committed_by = commits(
            {one.name: world.directory / f"{one.name}.journal" for one in world.writers}
        )
        self.invalid = self._invalid(world)
        #: What is wrong though no document is.
        self.wrong = troubles(effects, tracebacks(logs(world))) + self._grown(world)

    def _invalid(self, world: World) -> list[str]:
        """Why the run proves nothing, if so."""
        reasons = [f"{kind} had no effect" for kind, effect in self.felt.items() if not effect]
        if self.outcome.oracle.committed == 0:
            reasons.append("nothing was committed")
        if self.options.seconds >= ROOM and not self.options.only:
            reasons += [
                f"no {name}"
                for name in expected(self.options.seed, world.setup)
                if not self.effects[name]
            ]
            if self.options.frames and not self.effects["frames"]:
                reasons.append("no frames")
            if sum(self.faults.values()) < self.options.seconds / 2:
                reasons.append("too few faults")
            reasons += unproven(self.outcome.seen, self.committed_by, self.exits)
            reasons += self._short_lived(world)
        return reasons

    def _short_lived(self, world: World) -> list[str]:
        """In a long run a relay and a projector have to live long enough to show growth."""
        if self.options.seconds < LONG:
            return []
        lived = growth(self.outcome.warm, self.outcome.after)
        roles = {node.role for node in world.nodes if node.name in lived}
        missing = [role for role in ("relay", "projector") if not roles & {role, "all"}]
        return [f"no {role} lived long enough to show growth" for role in missing]

    def _grown(self, world: World) -> list[str]:
        if self.options.seconds < LONG:
            return []
        bounds = Bounds(
            units=_UNITS,
            lives=sum(node.child.starts for node in world.nodes),
            capture_changes=world.setup.capture == "polling",
            keeps_wal=self.settle_delay >= LET_GO,
        )
        return grown(self.outcome.before, self.outcome.warm, self.outcome.after, bounds)

    @property
    def code(self) -> int:
        """The exit code."""
        died = any(not name.startswith(("writer", "observer")) for name in self.exits)
        clean = not self.outcome.verdicts.wrong and not self.wrong and not died
        if not clean or self.outcome.caught_up is None:
            return 1
        return 2 if self.invalid else 0

    @property
    def _examples(self) -> list[str]:
        return [*self.outcome.verdicts.examples, *self.wrong]

    def data(self) -> dict[str, Any]:
        """The report as one object."""
        counts = self.outcome.verdicts.counts
        return {
            "seed": self.options.seed,
            "setup": str(self.options.setup),
            **self.options.setup._asdict(),
            "frames": self.options.frames,
            "seconds": self.options.seconds,
            "settle_delay": self.settle_delay,
            "committed": self.outcome.oracle.committed,
            "committed_by": self.committed_by,
            **{kind: counts[kind] for kind in KINDS},
            "valid": not self.invalid,
            "invalid_because": self.invalid,
            "caught_up_after": self.outcome.caught_up and round(self.outcome.caught_up, 1),
            "faults": dict(sorted(self.faults.items())),
            "felt": self.felt,
            "effects": self.effects,
            "repeated_for": dict(self.outcome.repeated),
            "seen": dict(sorted(self.outcome.seen.items())),
            "unexpected_exits": self.exits,
            "before": self.outcome.before,
            "warm": self.outcome.warm,
            "after": self.outcome.after,
            "memory": self.outcome.memory,
            "growth_since_warm": growth(self.outcome.warm, self.outcome.after),
            "examples": self._examples,
        }

    def show(self, directory: Path) -> None:
        """Print it: JSON on the last line; for people before it, unless only JSON is wanted."""
        out = sys.stderr if self.options.json else sys.stdout
        for example in self._examples:
            print(example, file=out)
        for reason in self.invalid:
            print(f"invalid: {reason}", file=out)
        for name, codes in self.exits.items():
            print(f"{name} ended by itself: {codes}", file=out)
        if self.code == 1 and self.outcome.caught_up is None:
            print(f"the read side did not catch up; see {directory}", file=out)
        out.flush()
        print(json.dumps(self.data()), flush=True)


def save(directory: Path, dsn: str, timeline: Timeline, report: Report | None) -> None:
    """Keep the timeline, the oracle and readside's notes beside the logs."""
    entries = [" ".join(map(str, entry)) for entry in timeline.entries]
    began = [
        f"began {timeline.began}",
        f"windows {timeline.windows}",
        f"poisons {timeline.poisons}",
    ]
    (directory / "timeline.txt").write_text("\n".join([*began, *entries]) + "\n")
    if report is not None:
        (directory / "report.json").write_text(json.dumps(report.data(), indent=1))
    for name, query in _TABLES.items():
        _dump(directory / f"{name}.csv", dsn, query)


_TABLES = {
    "history": "SELECT * FROM chaos.history ORDER BY key, version",
    "progress": "SELECT * FROM readside.progress ORDER BY 2, 3",
    "capture": "SELECT * FROM readside.capture",
    "leases": "SELECT * FROM readside.leases",
    "rewinds": "SELECT * FROM readside.rewinds",
    "parked_documents": "SELECT * FROM readside.parked_documents",
    "parked_events": "SELECT projection, partition, key, position, nth, id, type, payload, applied_at"
    " FROM readside.parked_events ORDER BY 1, 2, 3, 4",
    "slots": "SELECT * FROM pg_replication_slots",
}


def _dump(path: Path, dsn: str, query: str) -> None:
    try:
        with psycopg.connect(dsn, connect_timeout=3) as connection, path.open("wb") as file:
            copied = connection.cursor().copy(
                f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)".encode()
            )
            with copied as rows:
                for row in rows:
                    file.write(row)
    except (psycopg.Error, OSError) as error:
        path.write_text(f"not to be had: {error}\n")
