"""Commands written by hiredis, in C: redis-py does it in Python on asyncio, at half of a batch's whole cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hiredis import pack_command


def packing(connection: type[Any]) -> type[Any]:
    """The same class of connections of redis-py, with a faster way to write commands."""
    return type("Packing", (_Packing, connection), {})


class _Packing:
    def pack_command(self, *arguments: Any) -> list[bytes]:
        return [_packed(arguments)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join([_packed(tuple(command)) for command in commands])]


def _packed(arguments: tuple[Any, ...]) -> bytes:
    # A command of two words is one argument to redis-py and two to the server.
    name = arguments[0]
    if " " in name if isinstance(name, str) else b" " in name:
        arguments = (*name.split(), *arguments[1:])
    packed: bytes = pack_command(arguments)
    return packed
