"""Projections: which events make which documents, and how."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar, overload

from readside.core.errors import (
    ENDINGS,
    THEN_RETRY,
    DeclarationError,
    HandlerError,
    PayloadError,
)
from readside.core.event import Decoder, Event, key_text
from readside.core.record import Record
from readside.core.table import Table
from readside.core.view import ViewCodec, ViewT

Handler = Callable[..., Any]
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
KeyFunction = Callable[[Any], Any]

#: ``async``: folded after the commit, into the read store. ``wait``: the same, and the command waits for
#: it. ``inline``: in the command's transaction.
Mode = Literal["async", "wait", "inline"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_EVENT_AND_VIEW = 2


class Route:
    """One handler of a projection: an event class, its documents' keys, the function."""

    __slots__ = (
        "_decoder",
        "_keys",
        "by_own_key",
        "event",
        "handler",
        "read",
        "version",
        "wants_view",
    )

    def __init__(
        self,
        event: type[Event],
        keys: KeyFunction,
        handler: Handler,
        *,
        wants_view: bool,
        by_own_key: bool,
    ) -> None:
        self.event = event
        #: Whether the event's own key names the document, so that it is known without decoding.
        self.by_own_key = by_own_key
        self.handler = handler
        self.wants_view = wants_view
        self._keys = keys
        self._decoder = Decoder(event)
        #: For the hot path; see Decoder.
        self.version, self.read = self._decoder.version, self._decoder.read

    def decode(self, record: Record) -> Event:
        """The record's event; raises DecodeError."""
        return self._decoder.decode(record.version, record.payload)

    def keys(self, event: Event) -> tuple[str, ...]:
        """The documents that the event concerns, each once.

        Raises:
            HandlerError: the routing function raised, or returned what cannot be a key.
        """
        try:
            found = self._keys(event)
            if found is None:
                return ()
            if isinstance(found, (str, int, bytes)) or not isinstance(found, Iterable):
                return (key_text(found),)
            return tuple(dict.fromkeys(key_text(key) for key in found))
        except PayloadError as error:
            raise HandlerError(
                f"{self.event.__name__} routes to no usable key: {error.detail}",
                mend=f"mend the routing {THEN_RETRY}",
            ) from error
        except ENDINGS:
            raise
        except BaseException as error:
            raise HandlerError(
                f"The routing of {self.event.__name__} raised {error!r}.",
                mend=f"mend the routing {THEN_RETRY}",
            ) from error


class Projection(Generic[ViewT]):
    """A named read model: a view, and a handler for each event that changes it.

    A handler takes the event, or the event and the current view (None where there is none),
    and returns the new view; None deletes it. Handlers are pure: no I/O, no clock.
    """

    def __init__(
        self,
        name: str,
        view: type[ViewT],
        *,
        mode: Mode = "async",
        table: Table | None = None,
    ) -> None:
        if mode not in typing.get_args(Mode):
            raise DeclarationError(
                f"Projection {name!r} has no mode {mode!r}.",
                mend=f"use one of: {', '.join(typing.get_args(Mode))}",
            )
        if not _NAME.fullmatch(name):
            raise DeclarationError(
                f"{name!r} cannot name a projection.",
                mend="use a-z, 0-9, _ and -, starting with a letter, at most 63 characters",
            )
        self.name = name
        self.mode: Mode = mode
        #: What was said about its table, for read stores that have tables.
        self.table = table
        self.codec = ViewCodec(view)
        self.routes: dict[str, Route] = {}

    @property
    def reads_views(self) -> bool:
        """Whether any handler wants the current view; else documents need not be loaded."""
        return any(route.wants_view for route in self.routes.values())

    @overload
    def on(
        self, event: type[Event], *, key: str | KeyFunction | None = None
    ) -> Callable[[HandlerT], HandlerT]: ...

    @overload
    def on(self, event: HandlerT) -> HandlerT: ...

    @overload
    def on(self, *, key: str | KeyFunction | None = None) -> Callable[[HandlerT], HandlerT]: ...

    def on(self, event: Any = None, *, key: str | KeyFunction | None = None) -> Any:
        """Register a handler: ``@users.on(UserCreated)``, or ``@users.on`` with an annotated event.

        Args:
            event: the event class, or the handler itself.
            key: a field of the event, or a function of the event that returns one key or several;
                the event's own key where it is not given.

        Raises:
            DeclarationError: the handler or the key cannot work; the message shows the mend.
        """
        if event is None:
            return lambda handler: self._register(_annotated(handler), key, handler)
        if _is_event(event):
            return lambda handler: self._register(event, key, handler)
        if isinstance(event, type) or not callable(event):
            raise DeclarationError(
                f"{event!r} is no event class.", mend="derive it from readside.Event"
            )
        return self._register(_annotated(event), key, event)

    def _register(
        self, event: type[Event], key: str | KeyFunction | None, handler: HandlerT
    ) -> HandlerT:
        wire = event.__event_type__
        if wire in self.routes:
            raise DeclarationError(
                f"Projection {self.name!r} handles {wire} already.",
                mend="keep one handler for an event, or give the other class its own type",
            )
        self.routes[wire] = Route(
            event,
            _key_function(event, key),
            handler,
            wants_view=_arity(handler) == _EVENT_AND_VIEW,
            by_own_key=key is None or key == event.__event_key__,
        )
        return handler

    def fold(self, route: Route, event: Event, current: ViewT | None) -> ViewT | None:
        """Apply one event to one document's view.

        Raises:
            HandlerError: the handler raised, or returned something else than the view or None.
        """
        try:
            result = route.handler(event, current) if route.wants_view else route.handler(event)
        except ENDINGS:
            raise
        except (
            BaseException
        ) as error:  # a handler is called, not awaited: a cancellation is its own
            raise HandlerError(
                f"{_name(route.handler)} of projection {self.name!r} raised {error!r}.",
                mend=f"mend the handler {THEN_RETRY}",
            ) from error
        if result is not None and not isinstance(result, self.codec.view):
            raise HandlerError(
                f"{_name(route.handler)} of projection {self.name!r} returned {type(result).__name__}.",
                mend=f"return {self.codec.view.__name__}, or None to delete the document",
            )
        return result  # checked above


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))


def _arity(handler: Handler) -> int:
    if inspect.iscoroutinefunction(handler):
        raise DeclarationError(
            f"Handler {_name(handler)} is async.",
            mend="handlers are pure functions: use def, and put what you need into the event",
        )
    parameters = [
        parameter
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    required = [parameter for parameter in parameters if parameter.default is parameter.empty]
    for parameter in parameters[:_EVENT_AND_VIEW]:
        if parameter not in required and parameter.kind is not parameter.KEYWORD_ONLY:
            raise DeclarationError(
                f"Handler {_name(handler)} gives {parameter.name} a default, so nobody can tell whether"
                " it wants the current view.",
                mend="take (event, current view) without defaults; make other arguments keyword-only",
            )
    named = any(parameter.kind is parameter.KEYWORD_ONLY for parameter in required)
    if named or len(required) not in (1, _EVENT_AND_VIEW):
        raise DeclarationError(
            f"Handler {_name(handler)} takes {len(required)} arguments.",
            mend="take (event), or (event, current view)",
        )
    return len(required)


def _annotated(handler: Handler) -> type[Event]:
    mend = f"@projection.on(EventClass), or annotate: def {getattr(handler, '__name__', 'handler')}(event: EventClass)"
    try:
        first = next(iter(inspect.signature(handler).parameters))
        hint = typing.get_type_hints(handler).get(first)
    except (StopIteration, NameError, TypeError) as error:
        raise DeclarationError(
            f"The event of {_name(handler)} cannot be read: {error}", mend=mend
        ) from error
    if not _is_event(hint):
        raise DeclarationError(f"{_name(handler)} does not say which event it takes.", mend=mend)
    return hint  # type: ignore[return-value]  # checked above


def _is_event(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Event) and found is not Event


def _key_function(event: type[Event], key: str | KeyFunction | None) -> KeyFunction:
    if callable(key):
        return key
    field = key or event.__event_key__
    if field not in event.__struct_fields__:
        raise DeclarationError(
            f"{event.__name__} has no field {field!r} to route by.",
            mend=f"use one of: {', '.join(event.__struct_fields__)}",
        )
    return lambda value: getattr(value, field)


def wanted(projections: Iterable[Projection[Any]]) -> frozenset[str]:
    """The wire types which any of these projections handles."""
    return frozenset(wire for projection in projections for wire in projection.routes)
