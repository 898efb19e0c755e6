"""Runs a coroutine as the main job of a process: uvloop where it is there, a clean end on signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from readside.core.errors import ReadsideError
from readside.ports.ending import end

#: Exit codes: failed with a message; what shells add to the number of the signal that ended us.
FAILED = 1
SIGNALLED = 128
#: Seconds that an orderly end may take; after that the process ends without order, and what
#: it was doing is repeated at the next start.
_GRACE = 1.6
#: Seconds that the first request to end is given; another would interrupt what is cleaning up.
_ONCE = 1.0
#: Seconds between two full runs of the garbage collector in a service.
_COLLECT_EVERY = 20.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECRET = re.compile(r"(://[^/\s:@]*:)(?!password@)[^\s/]*@")

Work = Callable[[], Coroutine[Any, Any, int]]


def run(work: Work, *, service: bool = False) -> int:
    """Run until done, Ctrl-C, SIGTERM or SIGHUP; print readside's errors without a traceback.

    Args:
        work: makes the coroutine; called before there is a loop, so it may import an app.
        service: meant to run until SIGTERM, which then is success, as for every server.
    """
    try:
        job = work()
        if service:
            _collect_rarely()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(_interruptible(job, service=service))
        sys.stdout.flush()
    except ReadsideError as error:
        complain(error)
        return FAILED
    except BrokenPipeError:  # `| head` has seen enough; Python would complain at exit again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNALLED + signal.SIGPIPE
    finally:
        # The loop has put Python's handler back, whose traceback nobody wants at the exit.
        _replace(signal.SIGINT, signal.SIG_DFL)
    return code


def _collect_rarely() -> None:
    """Let the garbage collector look at fewer of the many short-lived tuples: a quarter of all the time.

    Almost everything here is freed by its count of references; cycles come from exceptions, whose
    frames hold batches and sockets. So everything is looked at now and then, see `collecting`.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


async def collecting() -> None:
    """Collect what exceptions have left behind, until cancelled; a pause of a few milliseconds."""
    while True:
        await asyncio.sleep(_COLLECT_EVERY)
        gc.collect()


def complain(error: ReadsideError) -> None:
    """Print what is wrong and the mend."""
    print(f"readside: {redacted(str(error))}", file=sys.stderr)


def redacted(text: str) -> str:
    """Replace the passwords of all URLs in it."""
    return _SECRET.sub(r"\1***@", text)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _interruptible(work: Coroutine[Any, Any, int], *, service: bool) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    stopped: asyncio.Future[int] = loop.create_future()

    asked = False

    def stop(number: int, _: object) -> None:
        # Once: `make` and `uv run` pass a Ctrl-C on that the terminal has sent already.
        nonlocal asked
        if asked:
            return
        asked = True
        guard = threading.Timer(_GRACE, _end_now, [_code(number, service=service)])
        guard.daemon = True
        guard.start()
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
            loop.call_soon_threadsafe(stopped.set_result, number)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            # Not the loop's own way: where a handler of the user hangs, the loop hears nothing.
            signal.signal(number, stop)
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task}, timeout=_ONCE)
    (failure,) = await end([task])  # asks again: a library may have swallowed it
    if failure is not None:
        raise failure
    return _code(stopped.result(), service=service)


def _code(number: int, *, service: bool) -> int:
    return 0 if service and number == signal.SIGTERM else SIGNALLED + number


def _end_now(code: int) -> None:
    # In a thread: it also works where something blocks the loop. What the loop still says about
    # servers that vanish is no news.
    logging.disable()
    embedded = sys.modules.get("readside.adapters.embedded.servers")
    if embedded is not None:
        embedded.end_at_once()
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\x1b[?25h")  # a live table had hidden the cursor
    os._exit(code)


def _replace(number: signal.Signals, handler: signal.Handlers) -> None:
    if signal.getsignal(number) is signal.default_int_handler:
        signal.signal(number, handler)
