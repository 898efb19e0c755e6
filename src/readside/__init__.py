"""readside: what you write is what you read, a moment later.

Flow: write -> relay -> (broker) -> projector -> (store) -> query.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from readside.app import App, record
    from readside.core.errors import (
        DeclarationError,
        HandlerError,
        HistoryLostError,
        ParkedError,
        PayloadError,
        ReadsideError,
        RefusedError,
        StaleReadError,
        UnavailableError,
    )
    from readside.core.event import Event
    from readside.core.position import Position
    from readside.core.projection import Projection
    from readside.core.table import Table
    from readside.core.token import Token
    from readside.core.view import View

__version__ = "0.1.0"

__all__ = [
    "App",
    "DeclarationError",
    "Event",
    "HandlerError",
    "HistoryLostError",
    "ParkedError",
    "PayloadError",
    "Position",
    "Projection",
    "ReadsideError",
    "RefusedError",
    "StaleReadError",
    "Table",
    "Token",
    "UnavailableError",
    "View",
    "record",
]

_HOMES = {
    "App": "app",
    "record": "app",
    "Event": "core.event",
    "Position": "core.position",
    "Projection": "core.projection",
    "Table": "core.table",
    "Token": "core.token",
    "View": "core.view",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: `readside --help` shall not wait for psycopg.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"readside.{_HOMES.get(name, 'core.errors')}"), name)
    globals()[name] = value
    return value
