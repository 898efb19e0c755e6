from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import readside


@pytest.mark.parametrize("name", readside.__all__)
def test_every_public_name_can_be_imported_and_explains_itself(name):
    found = getattr(importlib.import_module("readside"), name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert inspect.getdoc(found)
    assert found.__module__.startswith("readside.")


def test_a_star_import_brings_exactly_the_public_names():
    space: dict[str, object] = {}
    exec("from readside import *", space)  # noqa: S102 - the statement under test
    assert set(space) - {"__builtins__"} == set(readside.__all__)
    assert list(readside.__all__) == sorted(set(readside.__all__))


def modules() -> list[str]:
    found = pkgutil.walk_packages(readside.__path__, "readside.")
    return [module.name for module in found if not module.name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_every_module_can_be_imported_and_explains_itself(name):
    assert importlib.import_module(name).__doc__


def errors(base: type = readside.ReadsideError) -> list[type]:
    for name in modules():
        importlib.import_module(name)
    found = [base]
    for derived in base.__subclasses__():
        if derived.__module__.startswith("readside."):
            found += errors(derived)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_an_errors_docstring_is_the_heading_of_its_message(error):
    heading = inspect.cleandoc(vars(error)["__doc__"]).splitlines()[0]
    assert heading[0].isupper()
    assert heading.endswith(".")
    assert str(error("It was so.", mend="do so")) == f"{heading} It was so.\n  mend: do so"


def test_an_error_can_be_shown_where_docstrings_were_taken_away():
    program = "import readside.core.errors as e; print(e.FencedError('It was so.'))"
    shown = subprocess.run(
        [sys.executable, "-OO", "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "FencedError: It was so."
