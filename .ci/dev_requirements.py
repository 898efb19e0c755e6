"""Prints the development requirements of pyproject.toml, quoted for a shell: pip has no flag for them before 25.1."""

import shlex
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
print(shlex.join(project["dependency-groups"]["dev"]))
