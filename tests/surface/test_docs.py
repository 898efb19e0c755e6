from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from readside.apps.cli import cli
from readside.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_TEST = re.compile(r"`([\w./]+\.py)::(\w+)`")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def links():
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if "://" not in target:
                yield pytest.param(page, target, id=f"{page.relative_to(ROOT)}: {target}")


def anchors(page: Path) -> set[str]:
    """As the common renderers make them: lower case, words and hyphens, blanks as hyphens."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, found)}


def commands(app=cli, before: str = "readside"):
    for name in app:
        if not name.startswith("-"):
            inner = list(commands(app[name], f"{before} {name}"))
            yield from inner or [f"{before} {name}"]


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.is_relative_to(ROOT)
    assert there.exists()
    if anchor:
        assert anchor in anchors(there)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"])
def test_every_page_can_be_found_from_the_readme(page):
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        found = [target.partition("#")[0] for target in LINK.findall(prose(here))]
        ahead += [(here.parent / path).resolve() for path in found if path.endswith(".md")]
    assert page in seen


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED_TEST.findall(GUARANTEES))))
def test_a_test_that_shows_a_guarantee_exists(path, name):
    assert name.startswith("test_")
    assert name in functions(path)


def test_no_test_is_named_in_another_way():
    assert len(NAMED_TEST.findall(GUARANTEES)) == GUARANTEES.count(".py::")


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_every_setting_is_explained_with_its_default(field):
    (row,) = re.findall(rf"^\| `{field}` \|.*$", OPERATIONS, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    default = getattr(Settings(), field)
    assert cells[1] == f"`READSIDE_{field.upper()}`"
    assert cells[2].strip("`") == (str(default) if default != "" else "embedded")


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_explained(command):
    parent, _, name = command.rpartition(" ")
    table = re.search(r"^## Commands\n(.*?)^## ", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert table is not None
    rows = [line for line in table[1].splitlines() if f"`{parent} " in line]
    assert any(re.search(rf"(`|{parent} ){name}\b", row) for row in rows)


def test_the_example_of_the_readme_is_a_whole_program():
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    compile(program, "shop.py", "exec")
    for name in ("App", "Event", "View", "transaction", "record", "get", "Token"):
        assert name in program
