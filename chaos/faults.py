"""What each kind of fault does, and how it is healed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from chaos import sessions, tables
from chaos.plan import Fault
from chaos.poisons import Poisons
from chaos.pollers import change_capture, freeze_poller
from chaos.process import Child
from chaos.proxy import GOOD, Condition
from chaos.timeline import Timeline, last
from chaos.wipes import empty_keys, wipe
from chaos.world import Node, World
from chaos.zombie import make_zombie
from readside.core.errors import UnavailableError

_GRACE = 8.0
#: Events which have to be unapplied when a stream is wiped.
_BACKLOG = 40
#: What `terminate` of a readside process may end with: 143 where a server that hangs was let down.
ORDERLY = (0, 130, 143)


class Faults:
    """Does the faults of a plan."""

    def __init__(self, world: World, timeline: Timeline, stopping: asyncio.Event) -> None:
        self._world = world
        self._timeline = timeline
        self._stopping = stopping
        self._poisons = Poisons(world, timeline, stopping)

    async def strike(self, fault: Fault) -> None:
        """Do one fault, and heal it when its time is over."""
        await self._action(fault.kind)(fault)

    def _action(self, kind: str) -> Callable[[Fault], Awaitable[None]]:
        names = {
            "stream_purged": self._stream_wiped,
            "stream_deleted": self._stream_wiped,
            "messages_lost": self._stream_wiped,
            "poison_raises": self._poisons.strike,
            "poison_unwritable": self._poisons.strike,
            "poison_undecodable": self._poisons.undecodable,
            "zombie": self._zombie,
            "tick_frozen": self._poller,
            "batch_frozen": self._poller,
            "writer_restart": self._writer_restart,
        }
        if kind in names:
            return names[kind]
        first, _, second = kind.partition("_")
        if first in self._world.servers.servers:
            return self._server_kill if second == "kill" else self._server_pause
        if first == "link":
            return self._link
        special: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "graceful_restart": self._graceful_restart,
            "node_isolated": self._isolate,
            "store_flushed": self._flush,
            "store_rolled_back": self._roll_back,
            "backends_ended": self._end_backends,
            "table_locked": self._lock_table,
            "long_transaction": self._long_transaction,
            "capture_changed": self._change_capture,
            "stream_rolled_back": self._roll_back_stream,
        }
        if kind in special:
            return special[kind]
        return self._child_kill if second == "kill" else self._child_pause

    async def _node(self, fault: Fault) -> Node:
        """The relay at work, or a node beside it."""
        nodes = self._world.nodes
        relay = await self._world.relay()
        if fault.target == "relay":
            return relay or nodes[int(fault.dice * len(nodes))]
        others = [node for node in nodes if node is not relay and node.role != "relay"]
        others = others or nodes
        return others[int(fault.dice * len(others))]

    async def _relay(self) -> Node | None:
        for _ in range(20):
            if relay := await self._world.relay():
                return relay
            await last(0.25, self._stopping)
        return None

    async def _child(self, fault: Fault) -> Child:
        if fault.target == "writer":
            writers = self._world.writers
            return writers[int(fault.dice * len(writers))]
        return (await self._node(fault)).child

    async def _child_kill(self, fault: Fault) -> None:
        child = await self._child(fault)
        pid = child.pid
        child.kill()
        self._timeline.note(fault, int(not child.running), f"killed {child.name}, process {pid}")
        await last(fault.duration, self._stopping)
        child.start()

    async def _child_pause(self, fault: Fault) -> None:
        child = await self._child(fault)
        child.start()  # it may be down for another fault's sake
        pid, state = child.pid, child.pause()
        self._timeline.note(fault, int(state == "T"), f"froze {child.name}, process {pid}")
        await last(fault.duration, self._stopping)
        if child.pid == pid:
            child.resume()

    async def _zombie(self, fault: Fault) -> None:
        fenced, words = await make_zombie(self._world, fault.duration, fault.dice)
        self._timeline.note(fault, fenced, words)

    async def _poller(self, fault: Fault) -> None:
        effect, words = await freeze_poller(self._world, fault.kind, fault.duration)
        self._timeline.note(fault, effect, words)

    async def _change_capture(self, fault: Fault) -> None:
        effect, words = await change_capture(self._world, self._stopping)
        self._timeline.note(fault, effect, words)

    async def _end_backends(self, fault: Fault) -> None:
        ended = await sessions.end_backends(self._world.servers.address(fault.target))
        self._timeline.note(fault, ended, f"{ended} sessions are ended")

    async def _lock_table(self, fault: Fault) -> None:
        url = self._world.servers.address(fault.target)
        waited = await sessions.lock_table(url, fault.duration, fault.dice, self._stopping)
        self._timeline.note(fault, waited, f"{waited} waited for a locked table")

    async def _long_transaction(self, fault: Fault) -> None:
        dsn = self._world.dsn
        events = await sessions.long_transaction(dsn, fault.duration, fault.dice, self._stopping)
        self._timeline.note(fault, events, f"{events} events in a transaction that stayed open")

    async def _writer_restart(self, fault: Fault) -> None:
        child = await self._child(fault)
        code = await asyncio.to_thread(child.terminate, _GRACE)
        self._timeline.note(fault, int(code == 0), f"{child.name} ended with {code}")
        await last(fault.duration, self._stopping)
        child.start()

    async def _graceful_restart(self, fault: Fault) -> None:
        node = await self._node(fault)
        code = await asyncio.to_thread(node.child.terminate, _GRACE)
        self._timeline.note(fault, int(code in ORDERLY), f"{node.name} ended with {code}")
        await last(fault.duration, self._stopping)
        node.child.start()

    async def _server_kill(self, fault: Fault) -> None:
        server = self._world.servers[fault.target]
        if not server.running:
            self._timeline.note(fault, 0, "is down already")
            return
        # Not while another fault is starting it: that one would take it for broken.
        async with self._world.servers.starting[fault.target]:
            if not server.running:
                return
            pid = server.pid
            if fault.target in ("postgres", "tables") and fault.dice < 0.5:
                # The postmaster alone; its children notice and end by themselves.
                os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.kill)
        self._timeline.note(fault, int(not server.running), f"killed process {pid}")
        await last(fault.duration, self._stopping)
        await self._start(fault.target)

    async def _start(self, name: str) -> None:
        for attempt in range(5):
            try:
                async with self._world.servers.starting[name]:
                    await self._world.servers[name].start()
            except UnavailableError as error:
                print(f"         {name} does not start ({attempt}): {error}", file=sys.stderr)
            else:
                return
        raise RuntimeError(f"{name} does not start; see its log")

    async def _server_pause(self, fault: Fault) -> None:
        server = self._world.servers[fault.target]
        if not server.running:
            self._timeline.note(fault, 0, "is down already")
            return
        try:
            await asyncio.to_thread(server.pause)
        except UnavailableError:
            self._timeline.note(fault, 0, "has just gone down")
            return
        self._timeline.note(fault, 1, "frozen")
        await last(fault.duration, self._stopping)
        await asyncio.to_thread(self._world.servers.resume, fault.target)

    async def _link(self, fault: Fault) -> None:
        proxies = self._world.proxies(fault.target)
        # Not every role talks to every server, nor at every moment.
        for _ in range(20):
            if busy := [proxy for proxy in proxies if proxy.connections]:
                proxies = busy
                break
            await last(0.1, self._stopping)
        if fault.dice < 0.5:
            proxies = [proxies[int(fault.dice * 2 * len(proxies))]]
        kind = fault.kind.removeprefix("link_")
        if kind == "cut":
            cut = sum(proxy.cut() for proxy in proxies)
            self._timeline.note(fault, cut, f"cut {cut} connections")
            return
        condition = {
            "refuse": Condition(refuse=True),
            "delay": Condition(delay=0.02 + 0.2 * fault.dice),
            "blackhole": Condition(blackhole=True),
            "mute": Condition(mute=True),
        }[kind]
        before = [self._felt(proxy, kind) for proxy in proxies]
        for proxy in proxies:
            proxy.set(condition)
            if kind == "refuse":
                proxy.cut()
        await last(fault.duration, self._stopping)
        for proxy in proxies:
            if kind == "mute":
                proxy.cut()  # what was answered is never heard
            proxy.set(GOOD)
        felt = sum(self._felt(proxy, kind) for proxy in proxies) - sum(before)
        names = ", ".join(proxy.name for proxy in proxies)
        self._timeline.note(fault, felt, f"{names}: felt {felt} times")

    @staticmethod
    def _felt(proxy: Any, kind: str) -> int:
        if kind == "refuse":
            return int(proxy.refusals + proxy.cuts)
        if kind == "mute":
            return int(proxy.held + proxy.cuts)
        return int(proxy.delays if kind == "delay" else proxy.held)

    async def _isolate(self, fault: Fault) -> None:
        """A process loses its whole network, and nobody is told; then it all comes back."""
        node = await self._node(fault)
        before = sum(proxy.held for proxy in node.proxies.values())
        for proxy in node.proxies.values():
            proxy.set(Condition(blackhole=True))
        await last(fault.duration, self._stopping)
        for proxy in node.proxies.values():
            proxy.set(GOOD)
        held = sum(proxy.held for proxy in node.proxies.values()) - before
        self._timeline.note(fault, held, f"{node.name} was alone, {held} pieces held back")

    async def _stream_wiped(self, fault: Fault) -> None:
        """Wipe the broker's log while projectors are behind, and let them forget what they had read."""
        store = self._world.setup.read_store
        with suppress(UnavailableError):  # it may be down for another fault's sake
            await asyncio.to_thread(self._world.servers[store].pause)
        doomed: list[Child] = []
        try:
            await self._backlog()
            await last(fault.duration, self._stopping)
            # The relay lives on: one that starts anew would see the empty log, and fill it.
            relay = await self._relay()
            doomed = [node.child for node in self._world.nodes if node is not relay]
            for child in doomed:
                child.kill()
            gone = await wipe(self._world.servers.address("nats"), fault.kind)
        finally:
            for child in doomed:
                child.start()
            await asyncio.to_thread(self._world.servers.resume, store)
        self._timeline.note(fault, gone, f"{gone} messages are gone")

    async def _backlog(self) -> None:
        """Wait until something was committed which no projector can have applied, or a while."""
        seen: int | None = None
        for _ in range(25):
            row = await self._world.ask("SELECT sum(version) FROM chaos.keys")
            count = row and row[0]
            if seen is None:
                seen = count
            elif count is not None and count >= seen + _BACKLOG:
                return
            await last(0.2, self._stopping)

    async def _flush(self, fault: Fault) -> None:
        began = time.time()
        wipe_store = {"valkey": empty_keys, "tables": tables.empty}[fault.target]
        gone = await wipe_store(self._world.documents)
        self._timeline.windows.append((began, time.time()))
        self._timeline.note(fault, gone, f"{gone} keys are gone")

    async def _roll_back(self, fault: Fault) -> None:
        snapshots = self._world.servers.snapshots
        if not snapshots:
            self._timeline.note(fault, 0, "no snapshot yet")
            return
        at, place = snapshots[int(fault.dice * len(snapshots))]
        began = time.time()
        await self._world.servers.roll_back(place)
        self._timeline.windows.append((began, time.time()))
        self._timeline.note(fault, 1, f"the read store is back at {began - at:.1f} s ago")

    async def _roll_back_stream(self, fault: Fault) -> None:
        copies = self._world.servers.copies
        if not copies:
            self._timeline.note(fault, 0, "no copy yet")
            return
        at, place = copies[int(fault.dice * len(copies))]
        began = time.time()
        await self._world.servers.put_back_log(place)
        self._timeline.note(fault, 1, f"the broker is back at {began - at:.1f} s ago")
