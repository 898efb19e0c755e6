"""Every error of readside; a class's docstring is the first sentence of its message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: What ends the process, whoever raises it; everything else out of a handler is the handler's failure.
ENDINGS: Final = (KeyboardInterrupt, SystemExit)


#: How what was parked goes on, once its cause is mended.
THEN_RETRY: Final = (
    "and deploy it; what is parked goes on by: readside dead-letters retry module:app"
)
#: What follows a slot, or a tick, that is gone.
RESTARTS: Final = (
    "the relay begins a new epoch at its next try; then give up what is lost:"
    " readside reset module:app projection --give-up"
)


class ReadsideError(Exception):
    """Something went wrong in readside.

    Attributes:
        detail: what happened here, with the names of things.
        mend: what a person can do about it.
    """

    def __init__(self, detail: str = "", *, mend: str = "") -> None:
        self.detail = detail
        self.mend = mend
        super().__init__(detail)  # mend comes back from a pickle by its attribute

    def __str__(self) -> str:
        # Python -OO takes docstrings away.
        heading = (type(self).__doc__ or f"{type(self).__name__}:").strip().splitlines()[0]
        text = f"{heading} {self.detail}".strip()
        return f"{text}\n  mend: {self.mend}" if self.mend else text


class DeclarationError(ReadsideError, TypeError):
    """This declaration cannot work."""


class SettingsError(ReadsideError, ValueError):
    """A setting is wrong."""


class AdapterNotFoundError(ReadsideError, LookupError):
    """No installed package provides this adapter; check the URL scheme or the extras."""


class UnavailableError(ReadsideError):
    """A server cannot be reached or is not ready."""


class RefusedError(ReadsideError):
    """A server refuses what readside needs."""


class SlotBusyError(UnavailableError):
    """Another relay holds the replication slot."""


class HistoryLostError(ReadsideError):
    """Events which this projection never applied are gone from every log."""


class SlotLostError(HistoryLostError):
    """The replication slot is gone or was invalidated."""


class BrokerUncertainError(UnavailableError):
    """The broker did not prove that it stored what was published."""


class PayloadError(ReadsideError, ValueError):
    """An event cannot be recorded."""


class DecodeError(ReadsideError, ValueError):
    """A recorded event cannot be decoded."""


class HandlerError(ReadsideError):
    """A handler raised."""


class UnwritableError(HandlerError):
    """The read store refuses what a handler made.

    Attributes:
        documents: by key, why.
    """

    def __init__(
        self, detail: str = "", *, mend: str = "", documents: Mapping[str, str] | None = None
    ) -> None:
        self.documents = dict(documents or {})
        super().__init__(detail, mend=mend)


class StaleReadError(ReadsideError, TimeoutError):
    """The read store has not caught up with this token yet."""


class ParkedError(StaleReadError):
    """This document cannot move on."""


class SchemaError(ReadsideError):
    """The schema of readside in PostgreSQL is missing or of another version."""


class FencedError(ReadsideError):
    """Somebody else works on this partition, or the store is not as it was left."""


class LeaseLostError(FencedError):
    """A newer owner works on this partition."""
