"""Finds adapters by the scheme of a URL, through entry points; nobody here knows a vendor."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoints, distribution, entry_points
from typing import Any, cast
from urllib.parse import urlsplit

from readside.core.errors import AdapterNotFoundError
from readside.core.projection import Projection
from readside.ports.broker import Broker
from readside.ports.store import Store, Tables

_SETTINGS = {"readside.brokers": "READSIDE_BROKER", "readside.stores": "READSIDE_READ_STORE"}


def broker_for(url: str) -> Broker:
    """Make the broker that a URL names.

    Raises:
        AdapterNotFoundError: no installed package provides it.
    """
    return cast("Broker", _load("readside.brokers", url)(url))


def store_for(url: str, projections: Mapping[str, Projection[Any]] | None = None) -> Store:
    """Make the store that a URL names, and tell it the projections where it has to know them.

    Raises:
        AdapterNotFoundError: no installed package provides it.
    """
    store = cast("Store", _load("readside.stores", url)(url))
    if isinstance(store, Tables):
        store.declare(projections or {})
    return store


def _load(group: str, url: str) -> Any:
    scheme = urlsplit(url).scheme
    # Ours first: to look through all installed packages takes a good part of a start.
    own = distribution("readside").entry_points.select(group=group, name=scheme)
    known = EntryPoints() if own else entry_points(group=group)
    for entry in (*own, *known):
        if entry.name == scheme:
            try:
                return entry.load()
            except ModuleNotFoundError as error:
                raise AdapterNotFoundError(
                    f"{scheme}: needs the module {error.name}.", mend=_install(entry.module)
                ) from error
    names = ", ".join(sorted(entry.name for entry in known))
    raise AdapterNotFoundError(
        f"Nothing provides {scheme}: (installed: {names}).", mend=f"correct {_SETTINGS[group]}"
    )


def _install(module: str) -> str:
    own, _, vendor = module.removesuffix(".store").removesuffix(".broker").rpartition(".")
    if own == "readside.adapters":
        return f"pip install 'readside[{vendor}]'"
    return f"install what {module} needs"
