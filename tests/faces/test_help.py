"""`--help`: examples that can be parsed, nothing heavy imported."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from readside.apps.cli import cli

COMMANDS = ["bench", "demo", "init", "run", "servers", "status"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(desk, command):
    said = desk.do(command, "--help")
    assert said.code == 0
    examples = said.out.partition("Examples:")[2].split("\n")
    lines = [" ".join(line.split()) for line in examples if "readside " in line]
    assert len(lines) >= 2
    for line in lines:
        words = [word for word in shlex.split(line) if not word.startswith("READSIDE_")]
        assert words[:2] == ["readside", command]
        cli.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_help_loads_no_client_and_no_event_loop():
    program = (
        "import sys; from readside.apps.cli import cli\n"
        "try: cli(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*{'psycopg', 'nats', 'redis', 'uvloop', 'msgspec', 'readside.app'} & set(sys.modules),"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""
