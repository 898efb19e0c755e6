"""What an adapter can honestly promise."""

from __future__ import annotations

from enum import Enum


class Promise(Enum):
    """Three answers, and no default: an adapter has to say which one is true."""

    KEPT = "kept"
    #: Depends on how the server is set up; the adapter's docstring says on what.
    CONFIGURED = "configured"
    NEVER = "never"
