"""Finds the app that a command names."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType

from readside.adapters.postgres.session import Session
from readside.app import App
from readside.core.errors import ReadsideError, SettingsError


def load_app(target: str) -> App:
    """Import ``module:attribute`` from the current directory or the environment.

    Raises:
        SettingsError: there is no such app; the mend shows the form.
    """
    name, _, attribute = target.partition(":")
    if "/" in name or name.endswith(".py"):
        dotted = name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise SettingsError(
            f"{name} is a file, not a module.", mend=f"use {dotted}:{attribute or 'app'}"
        )
    if not name or not attribute:
        raise SettingsError(
            f"{target!r} names no app.",
            mend=f"use module:attribute, for example {name or 'shop.main'}:app",
        )
    module = _imported(name)
    if not hasattr(module, attribute):
        raise SettingsError(f"Module {name} has no {attribute!r}.", mend=_offer(module))
    found = getattr(module, attribute)
    if not isinstance(found, App):
        raise SettingsError(
            f"{target} is no readside.App but a {type(found).__name__}.", mend=_offer(module)
        )
    return found


def _imported(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ReadsideError:  # says itself what is wrong
        raise
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise SettingsError(
                f"There is no module {missing!r} here.",
                mend="run this where it can be imported, or set PYTHONPATH",
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> SettingsError:
    # Where the user's code is at fault, not where importlib or a library noticed.
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if not step.filename.startswith("<")][1:]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return SettingsError(
        f"Module {name} cannot be imported: {type(error).__name__}: {text}{where}.",
        mend=f'correct it; the whole traceback: python -c "import {name}"',
    )


def _offer(module: ModuleType) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    if not apps:
        return f'make one in {module.__name__}: app = readside.App("shop")'
    return "use " + " or ".join(f"{module.__name__}:{name}" for name in apps)


@asynccontextmanager
async def notes_of(app: App, purpose: str) -> AsyncIterator[Session]:
    """A connection to an app's notes for one command; everything of the app is closed at the end."""
    try:
        session = Session((await (await app.runtime()).addresses()).write_store, purpose)
        try:
            yield session
        finally:
            await session.close()
    finally:
        await app.close()
