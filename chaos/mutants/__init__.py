"""``python -m chaos --mutants [NAME …]``: seeds one wrong at a time, and sees that a check finds it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from chaos.mutants.catalogue import MUTANTS, Mutant
from chaos.mutants.trial import Found, try_out

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Try all mutants, or those whose names contain a word; 0 only if all were found."""
    chosen = [one for one in MUTANTS if not arguments or any(w in one.name for w in arguments)]
    survivors = 0
    for mutant in chosen:
        found = try_out(mutant)
        survivors += not found.by
        print(_row(mutant, found), flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants found", flush=True)
    return 1 if survivors or not chosen else 0


def _row(mutant: Mutant, found: Found) -> str:
    verdict = found.by or f"NOT FOUND: {found.why}"
    return f"{mutant.name:52} {verdict:64} {found.seconds:6.1f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
