"""Settings: arguments, then environment, then readside.toml; nothing configured means embedded servers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from readside.core.errors import SettingsError
from readside.core.leases import LONGEST
from readside.core.projection import Mode

_FILE = "readside.toml"
_PREFIX = "READSIDE_"
_FORMS = {
    "write_store": "postgresql://user:password@host:5432/database",
    "broker": "nats://host:4222, or direct: for none",
    "read_store": "redis://host:6379/0, or postgresql://user:password@host:5432/database",
}
# A host with a port looks like a scheme too, so a scheme alone is `direct:` or has slashes.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:(//|$)", re.IGNORECASE)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set; every field has a twin in the environment, ``READSIDE_<FIELD>``."""

    #: URL of PostgreSQL, ``postgresql://…``; empty for an embedded one.
    write_store: str = ""
    #: URL of the broker: ``nats://…``, or ``direct:`` for none; empty for an embedded NATS.
    broker: str = ""
    #: URL of the read store, ``redis://…`` or ``postgresql://…``; ``postgresql:`` alone for the write
    #: store's database; empty for an embedded Valkey.
    read_store: str = ""
    #: How events leave PostgreSQL: by logical replication, or by polling where that cannot be had.
    #: Fixed by `readside init`, which can also change it.
    capture: Literal["replication", "polling"] = "replication"
    #: When views change, of projections which do not say it themselves; see `App.projection`.
    mode: Mode = "async"
    #: Seconds that a command waits, at most, for the projections in mode `wait`.
    wait_timeout: float = 5.0
    #: Where events wait for the relay: in a table, or only in the log, as messages.
    outbox: Literal["table", "message"] = "table"
    #: Where embedded servers keep their data.
    directory: str = ".readside"
    #: Number of partitions; fixed when the app is installed.
    partitions: int = 8
    #: Largest payload of an event, in bytes of JSON.
    max_payload: int = 1_000_000
    #: Days that rows stay in the outbox.
    retention_days: int = 7
    #: Seconds after which a silent worker loses its partitions, 60 at most.
    lease_seconds: float = 5.0
    #: Seconds that a handler may block `readside run` before the process ends, to be started again.
    stall_seconds: float = 30.0
    #: Seconds between an event's application and PostgreSQL's leave to forget it.
    settle_delay: float = 5.0
    #: Megabytes of WAL that PostgreSQL keeps for projections which are behind.
    retained_wal_mb: int = 4096
    #: Connections of the application to the write store.
    pool_size: int = 10

    @property
    def embedded(self) -> frozenset[str]:
        """The servers which readside starts itself."""
        wanted = {"postgres": self.write_store, "nats": self.broker, "valkey": self.read_store}
        return frozenset(name for name, url in wanted.items() if not url)


def load(
    arguments: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Merge the three sources of settings.

    Raises:
        SettingsError: a name is unknown or a value does not fit; the message says where it came from.
    """
    environment = os.environ if environment is None else environment
    merged = _from_file(environment) | _from_environment(environment)
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    merged |= _fitting(given, "the arguments of App", "{}")
    return _checked(msgspec.convert(merged, Settings, strict=False))


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    fields = {f"{_PREFIX}{name.upper()}": name for name in Settings.__struct_fields__}
    for variable in sorted(environment):
        # Others may begin like this too (Kubernetes makes some for a service called readside),
        # but a slip of the pen would silently mean embedded servers.
        if variable.startswith(_PREFIX) and variable not in fields:
            meant = get_close_matches(variable, fields, 1, 0.9)
            if meant and meant[0] not in environment:
                raise SettingsError(f"There is no {variable}.", mend=f"write {meant[0]}")
    found = {
        name: environment[variable] for variable, name in fields.items() if variable in environment
    }
    return _fitting(found, "the environment", f"{_PREFIX}{{}}")


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get(f"{_PREFIX}CONFIG")
    path = Path(named or _FILE)
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(
            f"{named} does not exist.", mend=f"correct {_PREFIX}CONFIG, or unset it"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise SettingsError(
            f"{path} is no TOML: {error}.", mend='write lines like: broker = "nats://host:4222"'
        ) from error
    return _fitting(found, str(path), "{}")


def _fitting(found: dict[str, Any], source: str, spelling: str) -> dict[str, Any]:
    """Make sure that the settings of one source are settings, to be able to name the source."""
    known = Settings.__struct_fields__
    for name, value in found.items():
        if name not in known:
            meant = get_close_matches(name, known, 1, 0.75)
            raise SettingsError(
                f"{name!r} in {source} is not a setting.",
                mend=f"write {meant[0]}" if meant else f"settings are {', '.join(known)}",
            )
        try:
            msgspec.convert({name: value}, Settings, strict=False)
        except msgspec.ValidationError as error:
            said = spelling.format(name.upper() if spelling != "{}" else name)
            wanted = str(error).partition(" - at ")[0].replace("`", "")
            raise SettingsError(
                f"{said} in {source} is {value!r}: {wanted[:1].lower()}{wanted[1:]}.",
                mend=f"correct it, or leave it out for {getattr(Settings(), name)!r}",
            ) from error
    return found


def _checked(settings: Settings) -> Settings:
    if not 1 <= settings.partitions <= 1024:  # noqa: PLR2004 - the bound is the message
        raise SettingsError(f"partitions is {settings.partitions}.", mend="use 1 to 1024")
    for field in (
        "max_payload", "retention_days", "pool_size", "lease_seconds", "stall_seconds",
        "retained_wal_mb",
    ):  # fmt: skip
        if not 0 < getattr(settings, field) < math.inf:  # nan is neither
            raise SettingsError(
                f"{field} is {getattr(settings, field)}.", mend="use a positive number"
            )
    if settings.lease_seconds > LONGEST:
        raise SettingsError(
            f"lease_seconds is {settings.lease_seconds}.", mend=f"use {LONGEST:.0f} at most"
        )
    for field in ("settle_delay", "wait_timeout"):
        if not 0 <= getattr(settings, field) < math.inf:
            raise SettingsError(f"{field} is {getattr(settings, field)}.", mend="use 0 or more")
    if settings.outbox == "message" and settings.capture == "polling":
        raise SettingsError(
            "outbox is message and capture is polling: messages are in the log only, and polling cannot"
            " see them.",
            mend="use outbox=table with capture=polling, or capture=replication",
        )
    for field, form in _FORMS.items():
        url = getattr(settings, field)
        if url and not _SCHEME.match(url):
            raise SettingsError(f"{field} is no URL.", mend=f"write it as {form}")
        ports = (
            host.rpartition(":") for host in urlsplit(url).netloc.rpartition("@")[2].split(",")
        )
        if any(colon and not port.isdecimal() and "]" not in port for _, colon, port in ports):
            raise SettingsError(f"The port in {field} is not a number.", mend=f"write it as {form}")
    if settings.write_store and not settings.write_store.startswith(
        ("postgresql://", "postgres://")
    ):
        raise SettingsError(
            "write_store is no URL of PostgreSQL.", mend=f"write it as {_FORMS['write_store']}"
        )
    return settings
