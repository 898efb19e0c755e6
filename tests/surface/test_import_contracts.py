"""The arrows between the layers are checked; here the checker is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
FORBIDDEN = [contract for contract in CONTRACTS if contract["type"] == "forbidden"]
INDEPENDENT = [contract for contract in CONTRACTS if contract["type"] == "independence"]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what import-linter reads."""
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "src", tmp_path / "src", ignore=leave_out)
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.fixture
def lint(tree) -> Callable[[], subprocess.CompletedProcess[str]]:
    def run() -> subprocess.CompletedProcess[str]:
        # First on the path is the copy; else the installed package would be looked at.
        program = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command; lint_imports_command()"
        return subprocess.run(
            [sys.executable, "-c", program, "--no-cache"],
            cwd=tree,
            env={**os.environ, "COLUMNS": "500"},  # or it breaks the lines which are looked for
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def add_import(tree: Path, package: str, imported: str) -> str:
    """Let one module of a package import something it must not; returns the module's name."""
    folder = tree / "src" / package.replace(".", "/")
    name = "broken_on_purpose_" + imported.replace(".", "_")
    (folder / f"{name}.py").write_text(f"import {imported}\n")
    return f"{package}.{name}"


def test_all_contracts_are_of_a_kind_that_is_tried_here():
    assert len(CONTRACTS) == len(FORBIDDEN) + len(INDEPENDENT) >= 4


def test_the_tree_as_it_is_keeps_all_contracts(lint):
    checked = lint()
    assert checked.returncode == 0, checked.stdout
    for contract in CONTRACTS:
        assert f"{contract['name']} KEPT" in checked.stdout


@pytest.mark.parametrize("contract", FORBIDDEN, ids=lambda contract: contract["name"])
def test_each_forbidden_import_is_seen(contract, tree, lint):
    made = [
        (add_import(tree, source, forbidden), forbidden)
        for source in contract["source_modules"]
        for forbidden in contract["forbidden_modules"]
    ]
    checked = lint()
    assert checked.returncode != 0
    assert f"{contract['name']} BROKEN" in checked.stdout
    for module, forbidden in made:
        assert f"{module} -> {forbidden}" in checked.stdout


@pytest.mark.parametrize("contract", INDEPENDENT, ids=lambda contract: contract["name"])
def test_each_of_the_independent_is_seen_when_it_knows_another(contract, tree, lint):
    names = contract["modules"]
    made = [
        (add_import(tree, one, two), two)
        for one, two in zip(names, names[1:] + names[:1], strict=True)
    ]
    checked = lint()
    assert checked.returncode != 0
    assert f"{contract['name']} BROKEN" in checked.stdout
    for module, other in made:
        assert f"{module} -> {other}" in checked.stdout
