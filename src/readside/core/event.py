"""Events: what a command says has happened."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec

from readside.core.errors import ENDINGS, THEN_RETRY, DeclarationError, DecodeError, PayloadError

#: Bytes of a key's UTF-8 text.
LONGEST_KEY = 512

Payload = dict[str, Any]
Upcaster = Callable[[Payload], Payload]
UpcasterT = TypeVar("UpcasterT", bound=Upcaster)

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+|[0-9]+")
_WIRE_TYPE = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ENCODER = msgspec.json.Encoder()


def wire_type_of(class_name: str) -> str:
    """Derive the wire type from a class name: ``UserCreated`` becomes ``user.created``."""
    return ".".join(word.lower() for word in _WORDS.findall(class_name))


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _EventMeta(msgspec.StructMeta):
    """Takes readside's class arguments before msgspec sees the others."""

    def __new__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - the word that users know from CloudEvents
        version: int = 1,
        **config: Any,
    ) -> Any:
        made = super().__new__(cls, name, bases, namespace, **config)
        if bases and any(isinstance(base, _EventMeta) for base in bases):
            _declare(made, name, key, type, version)
        return made


def _declare(made: Any, name: str, key: str | None, wire: str | None, version: int) -> None:
    fields: tuple[str, ...] = made.__struct_fields__
    example = fields[0] if fields else "id"
    if key is None:
        key = getattr(made, "__event_key__", None)
    if key is None:
        raise DeclarationError(
            f"Event {name} names no key.",
            mend=f'name the field that orders its events: class {name}(readside.Event, key="{example}")',
        )
    if key not in fields:
        raise DeclarationError(
            f"Event {name} has no field {key!r}; its fields are {', '.join(fields) or 'none'}.",
            mend=f'use one of them: class {name}(readside.Event, key="{example}")',
        )
    if not wire and not name.isascii():
        raise DeclarationError(
            f"No wire type can be made of the name {name!r}.",
            mend=f'give it one: class {name}(readside.Event, key="{example}", type="some.thing")',
        )
    wire = wire or wire_type_of(name)
    if not _WIRE_TYPE.fullmatch(wire):
        raise DeclarationError(
            f"{wire!r} is no wire type for event {name}.",
            mend="use lower-case words of a-z, 0-9, _ and - joined by dots, e.g. user.created",
        )
    if version < 1:
        raise DeclarationError(f"Event {name} has version {version}.", mend="count from 1")
    made.__event_key__ = key
    made.__event_type__ = wire
    made.__event_version__ = version
    made.__event_upcasters__ = {}


class Event(msgspec.Struct, metaclass=_EventMeta, frozen=True):
    """Something that happened, in the past tense, as a msgspec struct.

    Class arguments:
        key: the field whose value says which thing it happened to. Events of one key stay in order.
        type: the name on the wire; from the class name where it is not given.
        version: counts the shapes of this event from 1; older ones need an upcaster each.

    Example:
        >>> class UserCreated(Event, key="id"):
        ...     id: int
        ...     name: str
        >>> UserCreated.__event_type__
        'user.created'
    """

    __event_key__: ClassVar[str]
    __event_type__: ClassVar[str]
    __event_version__: ClassVar[int]
    __event_upcasters__: ClassVar[dict[int, Upcaster]]

    def __init_subclass__(
        cls,
        *,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - see the metaclass
        version: int = 1,
        **config: Any,
    ) -> None:
        """Declare the class arguments to type checkers; the metaclass does the work."""
        super().__init_subclass__()

    @classmethod
    def upcast(cls, from_version: int) -> Callable[[UpcasterT], UpcasterT]:
        """Register a function that turns the payload of one version into that of the next.

        Raises:
            DeclarationError: the version is not an older one, or has an upcaster already.
        """
        if not 1 <= from_version < cls.__event_version__:
            raise DeclarationError(
                f"{cls.__name__} has version {cls.__event_version__}; nothing to upcast from {from_version}.",
                mend=f"declare class {cls.__name__}(..., version={from_version + 1}) or name an older version",
            )
        if from_version in cls.__event_upcasters__:
            raise DeclarationError(
                f"{cls.__name__} has an upcaster from version {from_version} already.",
                mend="remove one of the two",
            )

        def register(function: UpcasterT) -> UpcasterT:
            cls.__event_upcasters__[from_version] = function
            return function

        return register


def key_text(value: object) -> str:
    """Turn the value of a key into the text that orders, partitions and names documents.

    Raises:
        PayloadError: it is empty, too long, or holds a control character.
    """
    text = str(value)
    if not text or value is None:
        raise PayloadError("The key is empty.", mend="give the key field a value")
    if not text.isprintable():
        raise PayloadError(f"The key {text!r} holds characters that cannot be printed.")
    if len(text) > LONGEST_KEY // 4 and len(text.encode()) > LONGEST_KEY:
        raise PayloadError(f"The key is longer than {LONGEST_KEY} bytes.", mend="use a shorter key")
    return text


def key_of(event: Event) -> str:
    """The text of an event's key."""
    return key_text(getattr(event, event.__event_key__))


def encode(event: Event) -> bytes:
    """The event's plain JSON.

    Raises:
        PayloadError: a value cannot be written as JSON.
    """
    try:
        return _ENCODER.encode(event)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(
            f"{type(event).__name__} cannot be written as JSON: {error}",
            mend="use types that JSON knows, or that msgspec can encode",
        ) from error


class Decoder:
    """Turns the recorded payload of one event class back into the event."""

    def __init__(self, event: type[Event]) -> None:
        self._event = event
        #: The version that the class has now.
        self.version = event.__event_version__
        #: `decode` of that version with msgspec's own errors, and without the call around it.
        self.read: Callable[[bytes], Event] = msgspec.json.Decoder(event).decode

    def decode(self, version: int, payload: bytes) -> Event:
        """Decode, through the upcasters where the payload is of an older version.

        Unknown fields are ignored, so a newer producer does no harm.

        Raises:
            DecodeError: the payload does not fit, or an upcaster is missing or fails.
        """
        try:
            if version == self.version:
                return self.read(payload)
            return self._upcast(version, payload)
        except (DecodeError, *ENDINGS):
            raise
        except BaseException as error:  # also what a __post_init__ of the class raises
            raise DecodeError(
                f"{self._event.__event_type__} version {version} does not fit {self._event.__name__}: {error}",
                mend="give the new field a default, or raise the version and write an upcaster",
            ) from error

    def _upcast(self, version: int, payload: bytes) -> Event:
        event = self._event
        if version > event.__event_version__:
            raise DecodeError(
                f"{event.__event_type__} was recorded with version {version}, {event.__name__} knows {event.__event_version__}.",
                mend="deploy the projector with the newer class first",
            )
        content = msgspec.json.decode(payload)
        for step in range(version, event.__event_version__):
            upcaster = event.__event_upcasters__.get(step)
            if upcaster is None:
                raise DecodeError(
                    f"{event.__name__} has no upcaster from version {step}.",
                    mend=f"@{event.__name__}.upcast(from_version={step})",
                )
            try:
                content = upcaster(content)
            except ENDINGS:
                raise
            except BaseException as error:
                raise DecodeError(
                    f"The upcaster of {event.__name__} from version {step} raised {error!r}.",
                    mend=f"mend the upcaster {THEN_RETRY}",
                ) from error
        return msgspec.convert(content, event, strict=False)
