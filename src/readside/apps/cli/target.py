"""Finds the app that a command names."""

from __future__ import annotations

import importlib
import sys

from readside.app import App
from readside.core.errors import SettingsError


def load_app(target: str) -> App:
    """Import ``module:attribute`` from the current directory or the environment.

    Raises:
        SettingsError: there is no such app; the mend shows the form.
    """
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise SettingsError(
            f"{target!r} names no app.", mend="use module:attribute, e.g. shop.main:app"
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"Module {error.name!r} is not found.", mend="run this where it can be imported"
        ) from error
    except AttributeError as error:
        raise SettingsError(
            f"Module {module} has no {attribute!r}.", mend="name the readside.App in it"
        ) from error
    if not isinstance(found, App):
        raise SettingsError(f"{target} is no readside.App but a {type(found).__name__}.")
    return found
