"""The app: what a user declares, and the doors to write and to read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Self, overload

import psycopg

from readside.adapters.postgres_store.inline import InlineViews
from readside.core.awaited import awaited
from readside.core.errors import DeclarationError, ReadsideError, UnavailableError
from readside.core.event import Event, key_of
from readside.core.partition import partition_of
from readside.core.projection import Mode, Projection
from readside.core.table import Table
from readside.core.token import Token
from readside.core.view import ViewT
from readside.ports.store import Store
from readside.query.reader import Reader
from readside.query.watches import Wanted, unseen
from readside.runtime import Runtime
from readside.settings import Settings, load
from readside.write.outbox import Row, row_of
from readside.write.recording import MESSAGE, TABLE
from readside.write.transaction import Transaction, newest

_apps: dict[str, App] = {}


class BoundProjection(Projection[ViewT], Generic[ViewT]):
    """A projection of an app, which can be read."""

    def __init__(
        self,
        app: App,
        name: str,
        view: type[ViewT],
        *,
        mode: Mode,
        table: Table | None = None,
    ) -> None:
        super().__init__(name, view, mode=mode, table=table)
        self._app = app

    async def get(
        self, key: object, *, after: Token | str | None = None, timeout: float = 5.0
    ) -> ViewT | None:
        """The view of a key, or None.

        Args:
            key: as the event's key field has it.
            after: a token, or its text: wait until the view has what the token's transaction did.
            timeout: seconds to wait for that.

        Raises:
            StaleReadError: the deadline has passed.
            UnavailableError: the read store is away.
        """
        return (await self.get_many([key], after=after, timeout=timeout))[0]

    async def get_many(
        self, keys: Sequence[object], *, after: Token | str | None = None, timeout: float = 5.0
    ) -> list[ViewT | None]:
        """The views of several keys, in their order; see `get`."""
        if not keys:
            return []
        token = Token.parse(after) if isinstance(after, str) else after
        runtime = await self._app.runtime()
        inline = self.mode == "inline"
        if inline:  # what a token stands for was there with its commit
            token = None
        store: Store = await (runtime.inline_store() if inline else runtime.store())
        reader = Reader(self.name, self.codec, store, runtime.clock)
        return await reader.get_many(keys, token, timeout)


class App:
    """One application: its name, its settings, its projections.

    Args:
        name: a-z, 0-9 and _; names the slot, the stream and the keys.
        settings: any field of `readside.settings.Settings`; the environment and readside.toml
            fill in what is not given, and embedded servers what nobody configured.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self.settings: Settings = load(settings)
        self.recording = MESSAGE if self.settings.outbox == "message" else TABLE
        self.projections: dict[str, Projection[Any]] = {}
        self.inline = InlineViews(name, self.projections)
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        _apps[name] = self

    def projection(
        self,
        name: str,
        view: type[ViewT],
        *,
        mode: Mode | None = None,
        table: Table | None = None,
    ) -> BoundProjection[ViewT]:
        """Declare a read model; its documents live at ``<name>:<key>``, or are the rows of a table.

        Args:
            name: of the projection.
            view: what a document is.
            mode: ``async`` folds after the commit, into the read store; with ``wait`` the command
                waits until that is done, or a deadline has passed; ``inline`` folds in the command's
                transaction, into a table of the write store. The setting `mode` where it is not given.
            table: how the table shall be, where there is one.

        Raises:
            DeclarationError: the name is taken or cannot be used.
        """
        if name in self.projections:
            raise DeclarationError(
                f"Projection {name!r} exists already.", mend="give it another name"
            )
        chosen = self.settings.mode if mode is None else mode
        projection = BoundProjection(self, name, view, mode=chosen, table=table)
        self.projections[name] = projection
        return projection

    async def runtime(self) -> Runtime:
        """The open connections of this app in this event loop; opened at first use."""
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None:
            # What belongs to a closed loop cannot be closed any more; other loops may be at work.
            for old in [old for old in list(self._runtimes) if old.is_closed()]:
                self._runtimes.pop(old, None)
            runtime = self._runtimes[loop] = Runtime(
                self.name, self.settings, projections=self.projections
            )
        return runtime

    def transaction(self, *, timeout: float | None = None) -> AppTransaction:
        """``async with app.transaction() as tx``: a transaction of the write store.

        Where projections in mode ``wait`` handle what it records, the block ends when they have
        applied it; `tx.late` names those which had not at the deadline. The write stands in any case.

        Args:
            timeout: seconds to wait for them after the commit, 0 for not at all; the setting
                `wait_timeout` where it is not given.
        """
        return AppTransaction(self, self._seconds(timeout))

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self.settings.wait_timeout
        if not 0 <= timeout < math.inf:  # nan is neither
            raise ValueError(f"timeout is {timeout}: use seconds, 0 or more")
        return timeout

    async def token(self, *events: Event) -> Token:
        """A token for events that were recorded and committed on a connection of your own.

        Call it after the commit. `app.transaction()` has its own, `tx.token`.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        runtime = await self.runtime()
        pool, capture = await runtime.pool(), await runtime.capture()
        with _unavailable():
            position = await newest(pool, self.name)
        partitions = {partition_of(key_of(event), capture.partitions) for event in events}
        return Token(position, tuple(sorted(partitions)))

    async def wait(
        self, token: Token | str, *, timeout: float | None = None
    ) -> Mapping[str, ReadsideError]:
        """Wait until the projections in mode ``wait`` have applied what a token stands for.

        For those who record on connections of their own; `app.transaction()` does it by itself.

        Args:
            token: or its text.
            timeout: seconds in all; the setting `wait_timeout` where it is not given.

        Returns:
            by projection, what a reader would be told, as in `tx.late`; empty if all have applied it.
            It does not know the documents, so parked ones are told by `get(key, after=token)` only.
        """
        asked = Token.parse(token) if isinstance(token, str) else token
        names = [one.name for one in self.projections.values() if one.mode == "wait"]
        if not names or not asked.partitions:
            return {}
        watches = (await self.runtime()).watches
        return await watches.wait(dict.fromkeys(names, Wanted(asked)), self._seconds(timeout))

    @overload
    def record(
        self,
        connection: psycopg.Connection[Any],
        *events: Event,
        headers: Mapping[str, str] | None = None,
    ) -> None: ...

    @overload
    async def record(
        self,
        connection: psycopg.AsyncConnection[Any],
        *events: Event,
        headers: Mapping[str, str] | None = None,
    ) -> None: ...

    def record(
        self, connection: Any, *events: Event, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Record events on a psycopg connection that you have, in its transaction.

        Await it where the connection is an asynchronous one.

        Inline projections are folded at once, so that their documents are locked from here to the
        end of the transaction.

        Raises:
            PayloadError: an event cannot be recorded.
            HandlerError: a handler of an inline projection fails.
            DeclarationError: one is concerned, and there is no transaction.
            TypeError: the connection is none of psycopg's.
        """
        rows = [row_of(self.name, event, headers, self.settings.max_payload) for event in events]
        work = list(self.recording.statements(rows))
        if isinstance(connection, psycopg.AsyncConnection):
            return _record_async(connection, work, self.inline, rows)
        if not isinstance(connection, psycopg.Connection):
            raise TypeError(f"{type(connection).__name__} is no connection of psycopg 3")
        if not self.inline.check(connection, rows):
            for statement, values in work:
                connection.execute(statement, values)
            return None
        connection.execute(b"SELECT")  # opens its transaction, so that the next is a savepoint
        with connection.transaction():
            for statement, values in work:
                connection.execute(statement, values)
            self.inline.run(connection, rows)
        return None

    async def close(self) -> None:
        """Disconnect from everything that was opened in this loop, and end embedded servers."""
        runtime = self._runtimes.pop(asyncio.get_running_loop(), None)
        if runtime is not None:
            await runtime.close()

    async def __aenter__(self) -> Self:
        await (await self.runtime()).addresses()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


async def _record_async(
    connection: psycopg.AsyncConnection[Any],
    work: list[tuple[bytes, list[Any]]],
    inline: InlineViews,
    rows: Sequence[Row],
) -> None:
    if not inline.check(connection, rows):
        for statement, values in work:
            await connection.execute(statement, values)
        return
    await connection.execute(b"SELECT")  # as above
    async with connection.transaction():
        for statement, values in work:
            await connection.execute(statement, values)
        await inline.run_async(connection, rows)


class AppTransaction:
    """Opens what a transaction needs, then is one."""

    def __init__(self, app: App, timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._transaction: Transaction | None = None

    async def __aenter__(self) -> Transaction:
        runtime = await self._app.runtime()
        pool, capture = await runtime.pool(), await runtime.capture()
        self._transaction = Transaction(
            pool,
            self._app.name,
            partitions=capture.partitions,
            largest=self._app.settings.max_payload,
            inline=self._app.inline,
            recording=self._app.recording,
        )
        with _unavailable():
            return await self._transaction.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transaction is not None:
            await self._transaction.__aexit__(kind, error, trace)
            if kind is None:
                await self._wait(self._transaction)

    async def _wait(self, transaction: Transaction) -> None:
        """Wait for the projections that ask for it; whatever comes of it, the write stands."""
        position = transaction.token.position
        shares = awaited(self._app.projections.values(), transaction.touched, transaction.rows)
        wanted = {
            name: Wanted(Token(position, partitions), keys)
            for name, (partitions, keys) in shares.items()
        }
        transaction.late = unseen(wanted)  # for one who is cancelled while it waits
        if wanted:
            watches = (await self._app.runtime()).watches
            transaction.late = await watches.wait(wanted, self._timeout)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, TimeoutError) as error:
        raise UnavailableError(
            f"PostgreSQL: {error}", mend="start it, or check READSIDE_WRITE_STORE"
        ) from error


def record(connection: Any, *events: Event, headers: Mapping[str, str] | None = None) -> Any:
    """Record events of the process's only app on a psycopg connection; see `App.record`.

    Raises:
        DeclarationError: there is no app, or more than one.
    """
    if len(_apps) != 1:
        raise DeclarationError(
            f"readside.record works with one app in a process, and there are {len(_apps)}.",
            mend="use app.record(connection, event)",
        )
    return next(iter(_apps.values())).record(connection, *events, headers=headers)
