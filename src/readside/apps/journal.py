"""What a process says about its work: one line each, on standard error."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from readside.apps.process import redacted
from readside.core.complaints import Complaints
from readside.core.errors import ReadsideError

_NOISY = ("nats", "psycopg", "psycopg.pool", "asyncio")


class _Standard(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now: a live table stands in for it while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there, looked up each time here
        return sys.stderr


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


#: Seconds without a complaint after which a good status is believed.
_CALM = 3.0


class Trouble(logging.Filter):
    """Lets an error through once, however many parts of the process meet it; knows if one is open."""

    def __init__(self) -> None:
        super().__init__()
        self._complaints = Complaints()
        self._met_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = [one for one in arguments if isinstance(one, ReadsideError)]
        if not errors:
            return True
        self._met_at, text = time.monotonic(), str(errors[-1])
        return self._complaints.worth_saying(text, self._met_at)

    def over(self) -> bool:
        """Whether there was trouble that now has ended; True once. Asked when all looks well."""
        return time.monotonic() - self._met_at >= _CALM and self._complaints.clear()


def journal(level: int, form: str = "%(asctime)s %(levelname)-7s %(message)s") -> Trouble:
    """Send log records of this level and above to standard error."""
    handler, trouble = _Standard(), Trouble()
    handler.setFormatter(_Lines(form, "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(trouble)
    logging.basicConfig(level=level, handlers=[handler])
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    return trouble
