"""Gates between a stage and its adapters: where processes die, freeze, and lose answers."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Protocol, TypeVar, cast

AdapterT = TypeVar("AdapterT")


class Gate(Protocol):
    """Stands before and behind every call of an adapter; what it raises, the caller gets.

    A call that fails before had no effect; one that fails after had all of it.
    """

    async def before(self, call: str) -> None:
        """Let a call pass, e.g. ``store.apply``."""

    async def after(self, call: str) -> None:
        """Let its answer pass."""


class Life:
    """The life of a process: frozen, its calls stand still; dead, it has no more effects.

    Args:
        further: a gate behind this one.
    """

    def __init__(self, further: Gate | None = None) -> None:
        self._further = further
        self._awake = asyncio.Event()
        self._awake.set()
        #: Frozen or dead; a plain field, as it is looked at before and after every call.
        self._held = False
        self._hangs = False
        self.dead = False

    def freeze(self) -> None:
        """Stop, as by SIGSTOP: the world goes on."""
        self._held = True
        self._awake.clear()

    def thaw(self) -> None:
        """Go on, and find out how late it is."""
        if not self._hangs:
            self._held = self.dead
            self._awake.set()

    def hang(self) -> None:
        """Stand still until the end: nobody can thaw it."""
        self._hangs = True
        self.freeze()

    def end(self) -> None:
        """Die, as by SIGKILL."""
        self.dead = self._held = True
        self._awake.set()

    async def _breathe(self) -> None:
        await self._awake.wait()
        if self.dead:
            # Nothing happens any more, not even an error, until whoever killed it cancels it.
            await asyncio.get_running_loop().create_future()

    async def before(self, call: str) -> None:
        """See Gate."""
        if self._held:
            await self._breathe()
        if self._further is not None:
            await self._further.before(call)
            if self._held:
                await self._breathe()

    async def after(self, call: str) -> None:
        """See Gate."""
        if self._held:
            await self._breathe()
        if self._further is not None:
            await self._further.after(call)
            if self._held:
                await self._breathe()


def gated(inner: AdapterT, name: str, gate: Gate) -> AdapterT:
    """The same adapter, with every call of it through a gate.

    Args:
        inner: an adapter of any port.
        name: the first half of what its calls are named.
        gate: the gate.
    """
    return cast("AdapterT", _Gated(inner, name, gate))


class _Gated:
    def __init__(self, inner: Any, name: str, gate: Gate) -> None:
        self._inner = inner
        self._name = name
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(attribute):
            if inspect.ismethod(attribute):
                self.__dict__[name] = attribute  # the next call finds it without a search
            return attribute
        call, gate = f"{self._name}.{name}", self._gate

        async def through(*arguments: Any, **options: Any) -> Any:
            await gate.before(call)
            answer = await attribute(*arguments, **options)
            await gate.after(call)
            return gated(answer, "subscription", gate) if name == "subscribe" else answer

        self.__dict__[name] = through
        return through
