"""``python -m chaos``: a chaos run, a standing scenario, ``--simulate`` or ``--mutants``."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from chaos.options import parse

_OTHERS = {"--simulate": "chaos.simulation", "--mutants": "chaos.mutants"}


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; 0 clean, 1 wrong, 2 invalid."""
    for flag, module in _OTHERS.items():
        if flag in arguments:
            if importlib.util.find_spec(module) is None:
                print(f"{module} is not here yet", file=sys.stderr)
                return 2
            rest = [argument for argument in arguments if argument != flag]
            return int(importlib.import_module(module).main(rest))
    options = parse(arguments)
    # The app is declared when its module is imported, here and in every process of the run.
    os.environ["CHAOS_MODE"] = options.mode
    module = importlib.import_module("chaos.scenarios" if options.scenario else "chaos.run")
    return int(asyncio.run((module.play if options.scenario else module.run)(options)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
