"""nats-py's client with a way past what it does for each message, which is half of a projector's work.

Received, a message is otherwise looked at by a header parser, wrapped, queued, and handed to a task
that awaits a callback; sent, it is checked, its headers are taken apart and joined again. Connecting,
TLS, authentication, pings, requests and errors stay nats-py's. The three methods used here are not
public, so the package asks for the version that has them, and the conformance suite of brokers holds
them to what they have to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, MaxPayloadError

#: Takes subject, reply, payload and the block of headers of one message.
Taker = Callable[[bytes, bytes, bytes, bytes], None]

#: How a block of headers begins; a word of the server's own has a status behind it.
_BLOCK = "NATS/1.0\r\n"
_BEGINNING = _BLOCK.encode()

#: Bytes handed to the client at once: it waits itself when 2 MB wait to be sent.
_AT_ONCE = 128 * 1024


class Express(Client):
    """A client which hands messages of some subscriptions over as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Taker] = {}

    def divert(self, subscription: Subscription, take: Taker) -> None:
        """Hand the messages of a subscription to `take` as they come.

        What is none goes to the subscription's callback: the server's own words have a status, and
        no subject to reply to.
        """
        self._takers[subscription._id] = take  # noqa: SLF001 - see the module

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        take = self._takers.get(sid)
        if take is not None and reply and (headers is None or headers.startswith(_BEGINNING)):
            take(subject, reply, data, headers or b"")
        else:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # None is what it gets

    async def _process_op_err(self, e: Exception) -> None:
        """Give up what was not written yet: on uvloop, writing it to a broken connection would raise."""
        self._pending.clear()
        self._pending_data_size = 0
        await super()._process_op_err(e)

    async def send(self, messages: Iterable[tuple[str, str, bytes]]) -> None:
        """Publish messages, each a subject, the lines of its headers and a payload.

        Raises:
            MaxPayloadError: one is larger than the server takes.
            ConnectionClosedError: there is no connection.
        """
        largest = self.max_payload
        parts: list[bytes] = []
        size = 0
        for subject, lines, payload in messages:
            length = len(_BLOCK) + len(lines) + 2
            total = length + len(payload)
            if total > largest:
                raise MaxPayloadError
            head = f"HPUB {subject} {length} {total}\r\n{_BLOCK}{lines}\r\n"
            parts += (head.encode("ascii"), payload, b"\r\n")
            size += total
            if size > _AT_ONCE:
                await self._put(parts)
                parts, size = [], 0
        await self._put(parts)

    async def _put(self, parts: list[bytes]) -> None:
        if not self.is_connected:
            raise ConnectionClosedError
        if parts:
            await self._send_command(b"".join(parts))
