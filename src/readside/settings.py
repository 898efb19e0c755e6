"""Settings: arguments, then environment, then readside.toml; nothing configured means embedded servers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from readside.core.errors import SettingsError

_FILE = "readside.toml"
_PREFIX = "READSIDE_"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set; every field has a twin in the environment, ``READSIDE_<FIELD>``."""

    #: URL of PostgreSQL, ``postgresql://…``; empty for an embedded one.
    write_store: str = ""
    #: URL of the broker: ``nats://…``, or ``direct:`` for none; empty for an embedded NATS.
    broker: str = ""
    #: URL of the read store, ``redis://…``; empty for an embedded Valkey.
    read_store: str = ""
    #: Where embedded servers keep their data.
    directory: str = ".readside"
    #: Number of partitions; fixed when the app is installed.
    partitions: int = 8
    #: Largest payload of an event, in bytes of JSON.
    max_payload: int = 1_000_000
    #: Days that rows stay in the outbox.
    retention_days: int = 7
    #: Seconds after which a silent worker loses its partitions.
    lease_seconds: float = 5.0
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
    named = environment.get(f"{_PREFIX}CONFIG")
    merged: dict[str, Any] = _from_file(Path(named or _FILE), named=bool(named))
    for field in Settings.__struct_fields__:
        value = environment.get(f"{_PREFIX}{field.upper()}")
        if value is not None:
            merged[field] = value
    merged |= {name: value for name, value in (arguments or {}).items() if value is not None}
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"{error}.", mend=f"known settings: {', '.join(Settings.__struct_fields__)}"
        ) from error
    return _checked(settings)


def _from_file(path: Path, *, named: bool) -> dict[str, Any]:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        if named:  # else a typing error would start embedded servers
            raise SettingsError(
                f"{path} does not exist.", mend=f"correct {_PREFIX}CONFIG, or unset it"
            ) from error
        return {}
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", mend="correct the file") from error


def _checked(settings: Settings) -> Settings:
    if not 1 <= settings.partitions <= 1024:  # noqa: PLR2004 - the bound is the message
        raise SettingsError(f"partitions is {settings.partitions}.", mend="use 1 to 1024")
    for field in ("max_payload", "retention_days", "pool_size", "lease_seconds"):
        if not 0 < getattr(settings, field) < math.inf:  # nan is neither
            raise SettingsError(
                f"{field} is {getattr(settings, field)}.", mend="use a positive number"
            )
    if settings.write_store and not settings.write_store.startswith(
        ("postgresql://", "postgres://")
    ):
        raise SettingsError(
            "write_store is no URL of PostgreSQL.",
            mend="postgresql://user:password@host:5432/database",
        )
    return settings
