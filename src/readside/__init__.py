"""readside: what you write is what you read, a moment later.

Flow: write -> relay -> (broker) -> projector -> (store) -> query.
"""

from readside.app import App, record
from readside.core.errors import (
    DeclarationError,
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
from readside.core.token import Token
from readside.core.view import View

__version__ = "0.1.0"

__all__ = [
    "App",
    "DeclarationError",
    "Event",
    "HistoryLostError",
    "ParkedError",
    "PayloadError",
    "Position",
    "Projection",
    "ReadsideError",
    "RefusedError",
    "StaleReadError",
    "Token",
    "UnavailableError",
    "View",
    "record",
]
