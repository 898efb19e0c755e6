"""Starts child processes that end when this process ends, however it ends.

Linux sends a child its death signal when the *thread* that started it ends, so one thread that
lives as long as the process starts all of them: whoever called may come and go. Elsewhere there
is no death signal: after a SIGKILL of this process its servers stay, and the next owner of their
directory has to be told (see `EmbeddedServers`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from readside.adapters.embedded.account import Account

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: after one, only the call itself may happen. PyDLL keeps the
# interpreter's lock, so the child takes no lock that a vanished thread could hold.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Command:
    """A program to run.

    Attributes:
        arguments: the program and its arguments.
        home: its working directory, which also identifies it (see `family.squatters`).
        account: the user to run as, or None for ours.
        death_signal: what it gets when we die.
    """

    arguments: Sequence[str | Path]
    home: Path
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL


def spawn(command: Command, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start a program with its output in `log`, in a session of its own.

    In a session of its own a Ctrl-C in the terminal does not reach it: we stop it, in order.

    Raises:
        OSError: the program could not be started.
    """
    done: Future[subprocess.Popen[bytes]] = Future()
    _requests().put((functools.partial(_popen, command, log), done))
    return done.result()


def _popen(command: Command, log: BinaryIO) -> subprocess.Popen[bytes]:
    account = command.account
    return subprocess.Popen(  # noqa: S603  our own arguments, no shell
        command.arguments,
        cwd=command.home,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        # Python calls it after it has changed the user, and a change of user clears the signal.
        preexec_fn=functools.partial(die_with, os.getpid(), int(command.death_signal)),  # noqa: PLW1509
    )


def die_with(parent: int, number: int) -> None:
    """In a child before it runs its program: let it get signal `number` when `parent` dies; Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(1)


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and the like would override what we say; a locale that is not installed
    # stops valkey-server, and a multibyte one makes the postmaster of macOS refuse to start.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


_Popen = Callable[[], "subprocess.Popen[bytes]"]
_Requests = queue.SimpleQueue[tuple[_Popen, "Future[subprocess.Popen[bytes]]"]]
_started = threading.Lock()
_threads: dict[int, _Requests] = {}


def _requests() -> _Requests:
    with _started:
        # By process: a fork of us (a worker of a web server) has the dictionary, not the thread.
        if os.getpid() not in _threads:
            requests: _Requests = queue.SimpleQueue()
            threading.Thread(
                target=_serve, args=(requests,), name="readside-spawn", daemon=True
            ).start()
            _threads[os.getpid()] = requests
        return _threads[os.getpid()]


def _serve(requests: _Requests) -> None:
    while True:
        start, done = requests.get()
        try:
            done.set_result(start())
        except BaseException as error:  # noqa: BLE001  it belongs to the caller
            done.set_exception(error)
        # Nothing of the last request may be kept alive while waiting for the next.
        del start, done
