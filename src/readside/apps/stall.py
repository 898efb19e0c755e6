"""Ends a process whose event loop hangs, so that another can take over."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time

#: Exit code of a process that hung ("internal software error" in sysexits.h).
HUNG = 70
_LOOK_EVERY = 1.0


class StallWatch(threading.Thread):
    """Looks from outside whether the loop still turns.

    A handler that runs for ever blocks everything: leases run out, and the next process would hang
    in the same handler. Ended here and started again by whoever supervises it, the process is
    one more that died while it applied this event, and after a few of those the event is parked.

    Args:
        limit: seconds without a turn after which the process ends.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(name="stall watch", daemon=True)
        self._limit = limit
        self._turned_at = time.monotonic()
        self._over = threading.Event()

    def attach(self) -> None:
        """Watch the running loop."""
        self._turn(asyncio.get_running_loop())
        self.start()

    def detach(self) -> None:
        """Stop watching."""
        self._over.set()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turned_at = time.monotonic()
        if not self._over.is_set():
            loop.call_later(_LOOK_EVERY, self._turn, loop)

    def run(self) -> None:
        """Look again and again."""
        looked_at = time.monotonic()
        while not self._over.wait(_LOOK_EVERY):
            now = time.monotonic()
            if now - looked_at > 3 * _LOOK_EVERY:
                # The whole process was stopped, or starved: the loop shall have its time.
                self._turned_at = now
            looked_at = now
            if now - self._turned_at > self._limit:
                self._end()

    def _end(self) -> None:
        print(
            f"readside: this process has been hanging for {self._limit:.0f} s, probably in a handler; it"
            " ends. Started again a few times, it parks the event. It hangs here:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(HUNG)
