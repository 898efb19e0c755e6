"""What readside calls things in PostgreSQL."""

from __future__ import annotations

import re
from typing import NamedTuple

from readside.core.errors import SettingsError

# No double underscore: it separates an app from the day in the names of partitions.
#: What the relay reads of a row of the outbox.
COLUMNS = ("id", "type", "aggregateid", "version", "payload", "headers")

_APP = re.compile(r"[a-z](?:_?[a-z0-9]){0,40}")
_LONGEST = 41


class Names(NamedTuple):
    """The names of one app's things."""

    app: str

    @property
    def slot(self) -> str:
        """The replication slot."""
        return f"readside_{self.app}"

    @property
    def publication(self) -> str:
        """The publication of the app's outbox."""
        return f"readside_{self.app}"

    @property
    def branch(self) -> str:
        """The app's branch of the outbox."""
        return f"outbox_{self.app}"

    @property
    def xid_index(self) -> str:
        """The index of the branch that polling needs."""
        return f"outbox_{self.app}_xid"


def checked_name(app: str) -> str:
    """The app's name, if slot, tables and subjects can carry it.

    Raises:
        SettingsError: they cannot.
    """
    if not _APP.fullmatch(app) or len(app) > _LONGEST:
        raise SettingsError(
            f"{app!r} cannot name an app.",
            mend="use a-z, 0-9 and single _ between them, starting with a letter, at most 41 characters",
        )
    return app
