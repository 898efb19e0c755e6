"""``python -m chaos --mutants [NAME …]``: seeds one wrong at a time, and sees that a check finds it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from chaos.mutants.catalogue import MUTANTS, Mutant
from chaos.mutants.trial import Found, try_out

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Try all mutants, or those whose names contain a word; 0 only if all were found."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos --mutants",
        description="Seeds one wrong at a time, and sees that a check finds it. 0 only if all were found.",
        epilog="Examples: --list; reset (those whose names contain it); without a name, all.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="words of the mutants' names")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    options = parser.parse_args(arguments)
    chosen = [
        one for one in MUTANTS if not options.names or any(w in one.name for w in options.names)
    ]
    if not chosen:
        parser.error(f"no mutant's name contains {' or '.join(options.names)}; see --list")
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name:60} {mutant.file}")
        return 0
    survivors = 0
    for mutant in chosen:
        found = try_out(mutant)
        survivors += not found.by
        print(_row(mutant, found), flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants found", flush=True)
    return 1 if survivors else 0


def _row(mutant: Mutant, found: Found) -> str:
    verdict = found.by or f"NOT FOUND: {found.why}"
    return f"{mutant.name:60} {verdict:64} {found.seconds:6.1f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
