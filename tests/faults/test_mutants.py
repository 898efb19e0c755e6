"""A mutant that fits nowhere any more has never lived, and says nothing of the checks."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.mutants.catalogue import MUTANTS, Mutant

_SOURCE = Path(__file__).parents[2] / "src" / "readside"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_into_one_place(mutant: Mutant) -> None:
    text = (_SOURCE / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
