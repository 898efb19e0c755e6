"""A TCP proxy between a readside process and a server, which can cut, refuse, delay, swallow and mute.

One proxy for each process and server, so that a network can fail for one alone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import NamedTuple

_HIGH_WATER = 1 << 20
#: What a server answers to whoever has lost its work to another: the read store to a write which expects
#: another checkpoint (apply.lua, readside_store.insist), the write store to a poller.
_REFUSALS = {
    "valkey": b"FENCED\r\n",
    "tables": b"MFENCED\0",
    "postgres": b"another poller has taken over",
}


class Condition(NamedTuple):
    """How the network is."""

    #: New connections are reset.
    refuse: bool = False
    #: Nothing passes, in either direction, and nobody is told; what was sent comes later.
    blackhole: bool = False
    #: What the server answers is held back (and lost, if the connection is cut meanwhile).
    mute: bool = False
    #: Seconds that every piece takes.
    delay: float = 0.0
    #: A connection that sends a piece with these bytes is held back from there on.
    trap: bytes = b""


GOOD = Condition()


class Proxy:
    """Listens on a loopback port and forwards to another."""

    def __init__(self, name: str, upstream: int) -> None:
        self.name = name
        self.upstream = upstream
        self.port = 0
        self.condition = GOOD
        self.connections: set[_Connection] = set()
        #: Effects: connections cut and refused, pieces delayed, bytes held back.
        self.cuts = self.refusals = self.delays = self.held = 0
        #: What the server has refused, by its own word.
        self.fenced = 0
        self.refusal = _REFUSALS.get(name.rpartition("/")[2], b"")
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Downstream(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def set(self, condition: Condition) -> None:
        """Change the network's condition; what was held back goes on if it may."""
        self.condition = condition
        for connection in list(self.connections):
            connection.pump()

    def cut(self) -> int:
        """Reset all connections at once; return how many there were."""
        doomed = list(self.connections)
        for connection in doomed:
            connection.reset()
        self.cuts += len(doomed)
        return len(doomed)

    @property
    def trapped(self) -> int:
        """Connections that are held back because of what they sent."""
        return sum(connection.trapped for connection in self.connections)

    def local_ports(self) -> set[int]:
        """The ports that the server sees its clients come from."""
        return {connection.upstream_port for connection in self.connections}

    def close(self) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.reset()


class _Pieces:
    """What one side has sent and the other has not got: each piece with the time it is due."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes | None]] = deque()
        self.size = 0

    def put(self, due: float, piece: bytes | None) -> None:
        self._pieces.append((due, piece))
        self.size += len(piece or b"")

    def due(self) -> float | None:
        return self._pieces[0][0] if self._pieces else None

    def take(self) -> bytes | None:
        _, piece = self._pieces.popleft()
        self.size -= len(piece or b"")
        return piece

    def clear(self) -> None:
        self._pieces.clear()
        self.size = 0


class _Connection:
    """A client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy, client: asyncio.Transport) -> None:
        self.proxy = proxy
        self.client = client
        self.server: asyncio.Transport | None = None
        self.upstream_port = 0
        self.trapped = False
        self.requests = _Pieces()
        self.answers = _Pieces()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        proxy.connections.add(self)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        try:
            transport, _ = await self._loop.create_connection(
                lambda: _Upstream(self), "127.0.0.1", self.proxy.upstream
            )
        except OSError:
            self.reset()
            return
        if self not in self.proxy.connections:
            transport.abort()
            return
        self.server = transport
        self.upstream_port = transport.get_extra_info("sockname")[1]
        self.pump()

    def received(self, pieces: _Pieces, data: bytes | None) -> None:
        """Take a piece, or the end (None), from one side."""
        delay = self.proxy.condition.delay
        self.proxy.delays += bool(delay)
        self._look(pieces, data or b"")
        pieces.put(self._loop.time() + delay, data)
        self.pump()

    def _look(self, pieces: _Pieces, data: bytes) -> None:
        trap = self.proxy.condition.trap
        if pieces is self.answers:
            self.proxy.fenced += bool(self.proxy.refusal) and data.count(self.proxy.refusal)
        elif trap and trap in data:
            self.trapped = True

    def pump(self) -> None:
        """Forward what may be forwarded."""
        condition = self.proxy.condition
        self.trapped = self.trapped and bool(condition.trap)
        if self.server is None or self.trapped:
            return
        if condition.blackhole or condition.mute:
            self.proxy.held += bool(self.answers.size or self.requests.size)
        if not condition.blackhole:
            self._forward(self.requests, self.server)
        if not condition.blackhole and not condition.mute:
            self._forward(self.answers, self.client)
        self._throttle(self.client, self.requests, self.server)
        self._throttle(self.server, self.answers, self.client)

    def _forward(self, pieces: _Pieces, transport: asyncio.Transport) -> None:
        now = self._loop.time()
        while (due := pieces.due()) is not None:
            if due > now:
                if self._timer is None:
                    self._timer = self._loop.call_at(due, self._on_time)
                return
            piece = pieces.take()
            if piece is None:
                self.close()
                return
            if not transport.is_closing():
                transport.write(piece)

    def _on_time(self) -> None:
        self._timer = None
        self.pump()

    @staticmethod
    def _throttle(source: asyncio.Transport, pieces: _Pieces, sink: asyncio.Transport) -> None:
        if source.is_closing():
            return
        if pieces.size > _HIGH_WATER or sink.get_write_buffer_size() > _HIGH_WATER:
            source.pause_reading()
        else:
            source.resume_reading()

    def close(self) -> None:
        """Close both sides in order."""
        self._forget()
        for transport in (self.client, self.server):
            if transport is not None:
                transport.close()

    def reset(self) -> None:
        """Reset both sides: an RST, as from a machine that is gone."""
        self._forget()
        for transport in (self.client, self.server):
            if transport is not None:
                _linger_not(transport)
                transport.abort()

    def _forget(self) -> None:
        self.proxy.connections.discard(self)
        self._connecting.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.requests.clear()
        self.answers.clear()


def _linger_not(transport: asyncio.Transport) -> None:
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Downstream(asyncio.Protocol):
    """The client's side."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._connection: _Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._proxy.condition.refuse:
            self._proxy.refusals += 1
            _linger_not(transport)
            transport.abort()
            return
        self._connection = _Connection(self._proxy, transport)

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.received(self._connection.requests, data)

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.pump()

    def connection_lost(self, error: Exception | None) -> None:
        if self._connection is not None and self._connection in self._proxy.connections:
            self._connection.received(self._connection.requests, None)


class _Upstream(asyncio.Protocol):
    """The server's side."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._connection.received(self._connection.answers, data)

    def resume_writing(self) -> None:
        self._connection.pump()

    def connection_lost(self, error: Exception | None) -> None:
        if self._connection in self._connection.proxy.connections:
            self._connection.received(self._connection.answers, None)
