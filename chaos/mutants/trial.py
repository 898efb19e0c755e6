"""Tries one mutant: a copy of the package with the patch, and the checks against the copy."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from chaos.mutants.catalogue import Mutant

_ROOT = Path(__file__).parent.parent.parent
_PATIENCE = 12
_SECONDS = 20
#: pytest's exit code for "no tests were collected".
_NOTHING = (4, 5)


class Found(NamedTuple):
    """Which check found it, after how many seconds; by is empty if none did."""

    by: str
    seconds: float
    why: str


def try_out(mutant: Mutant) -> Found:
    """Run the checks in their order until one fails which passes without the mutant."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="readside-mutant-") as place:
        Path(place).chmod(0o755)
        source = Path(place) / "src"
        shutil.copytree(_ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        target = source / "readside" / mutant.file
        text = target.read_text()
        if text.count(mutant.old) != 1:
            return Found("", 0.0, f"the patch does not fit {mutant.file} any more")
        target.write_text(text.replace(mutant.old, mutant.new))
        for check in mutant.checks:
            if _fails(check, source):
                seconds = time.monotonic() - began
                if _passes_without(check):
                    return Found(check, seconds, "")
                return Found("", seconds, f"{check} fails without the mutant, too")
    return Found("", time.monotonic() - began, "all checks passed")


def _fails(check: str, source: Path) -> bool:
    kind, _, rest = check.partition(":")
    if kind == "simulate":
        return _simulation(rest, source)
    return _tests(rest, source) if kind == "tests" else _chaos(rest, source)


@functools.cache
def _passes_without(check: str) -> bool:
    return not _fails(check, _ROOT / "src")


def _environment(source: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{_ROOT}"}


def _tests(arguments: str, source: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    if not (_ROOT / arguments.split(maxsplit=1)[0]).exists():
        return False
    words = arguments.split(" ", 2)
    ended = subprocess.run(
        [*command, *words],
        cwd=_ROOT,
        env=_environment(source),
        capture_output=True,
        check=False,
    )
    return ended.returncode not in (0, *_NOTHING)


def _simulation(seeds: str, source: Path) -> bool:
    ended = subprocess.run(
        [sys.executable, "-m", "chaos", "--simulate", "--seeds", seeds],
        cwd=_ROOT,
        env=_environment(source),
        capture_output=True,
        check=False,
    )
    return ended.returncode == 1


def _chaos(arguments: str, source: Path) -> bool:
    """Whether a short run of some kinds of faults finds something wrong."""
    broker, seed, kinds = arguments.split(":")
    command = [sys.executable, "-m", "chaos", "--json", "--broker", broker, "--seed", seed]
    options = ["--only", kinds, "--seconds", str(_SECONDS), "--patience", str(_PATIENCE)]
    with tempfile.TemporaryDirectory(prefix="readside-mutant-run-") as artefacts:
        ended = subprocess.run(
            [*command, *options, "--code", str(source), "--keep-artifacts", artefacts],
            cwd=_ROOT,
            env=_environment(source),
            capture_output=True,
            text=True,
            check=False,
        )
    lines = ended.stdout.splitlines()
    # Without a report the run itself has failed, and a failure of the harness finds nothing.
    return bool(lines) and ended.returncode == 1 and "committed" in json.loads(lines[-1])
