"""Finds adapters by the scheme of a URL, through entry points; nobody here knows a vendor."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, cast
from urllib.parse import urlsplit

from readside.core.errors import AdapterNotFoundError
from readside.ports.broker import Broker
from readside.ports.store import Store


def broker_for(url: str) -> Broker:
    """Make the broker that a URL names.

    Raises:
        AdapterNotFoundError: no installed package provides it.
    """
    return cast("Broker", _load("readside.brokers", url)(url))


def store_for(url: str) -> Store:
    """Make the store that a URL names.

    Raises:
        AdapterNotFoundError: no installed package provides it.
    """
    return cast("Store", _load("readside.stores", url)(url))


def _load(group: str, url: str) -> Any:
    scheme = urlsplit(url).scheme or url
    known = entry_points(group=group)
    for entry in known:
        if entry.name == scheme:
            try:
                return entry.load()
            except ModuleNotFoundError as error:
                raise AdapterNotFoundError(
                    f"{scheme}:// needs the module {error.name}.",
                    mend=f"pip install 'readside[{scheme.removesuffix('s')}]'",
                ) from error
    names = ", ".join(sorted(entry.name for entry in known))
    raise AdapterNotFoundError(f"Nothing provides {scheme}:// ({names}).")
