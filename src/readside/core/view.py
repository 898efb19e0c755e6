"""Views: the documents of a read model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, dataclass_transform

import msgspec

from readside.core.errors import ENDINGS, DecodeError


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _ViewMeta(msgspec.StructMeta):
    """Tells type checkers that views cannot be changed."""


class View(msgspec.Struct, metaclass=_ViewMeta, frozen=True):
    """One document of a read model, as a msgspec struct; plain JSON in the read store."""


ViewT = TypeVar("ViewT")


class ViewCodec(Generic[ViewT]):
    """Writes views as JSON and reads them back."""

    def __init__(self, view: type[ViewT]) -> None:
        self.view = view
        self.encode = msgspec.json.Encoder().encode
        #: `decode` with msgspec's own errors, and without the call around it.
        self.read: Callable[[bytes], ViewT] = msgspec.json.Decoder(view).decode

    def decode(self, document: bytes) -> ViewT:
        """Read a document.

        Raises:
            DecodeError: it does not fit the view's fields.
        """
        try:
            return self.read(document)
        except ENDINGS:
            raise
        except BaseException as error:  # also what a __post_init__ of the class raises
            raise DecodeError(
                f"A stored document does not fit {self.view.__name__}: {error}",
                mend="give new fields of the view a default, or rebuild the projection",
            ) from error
