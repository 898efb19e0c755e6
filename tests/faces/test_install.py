"""What `make` says on a machine that lacks something."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "install"

OLD = """#!/bin/sh
[ "$1" = -V ] && echo "Python 3.9.2" && exit 0
exit 1
"""
WITHOUT_VENV = """#!/bin/sh
case "$*" in
  -V) echo "Python 3.12.3" ;;
  *ensurepip*) exit 1 ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()

    def install(name, text, *arguments):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
        return subprocess.run(
            ["/bin/sh", SCRIPT, tmp_path / "venv", *arguments],
            env={"PATH": str(programs)},
            cwd=SCRIPT.parents[1],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return install


def test_an_old_python_is_named_with_the_mend(install):
    said = install("python3", OLD)
    assert said.returncode == 1
    assert "Python 3.11 or later is needed, and there is: Python 3.9.2" in said.stderr
    assert "make demo PYTHON=" in said.stderr


def test_no_python_at_all(install, tmp_path):
    said = install("unrelated", OLD, "python3.11")
    assert said.returncode == 1
    assert "no python3.11" in said.stderr


def test_a_python_without_venv_is_named_with_the_mend(install):
    said = install("python3", WITHOUT_VENV)
    assert said.returncode == 1
    assert "Python 3.12.3 has no venv" in said.stderr
    assert "apt install python3-venv" in said.stderr
