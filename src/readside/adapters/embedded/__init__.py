"""Real PostgreSQL, NATS and Valkey servers out of wheels, as child processes of this one."""

from __future__ import annotations

from readside.adapters.embedded.servers import Addresses, EmbeddedServers

__all__ = ["Addresses", "EmbeddedServers"]
