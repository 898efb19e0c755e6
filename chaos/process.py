"""A child process of ours: started, killed, frozen, started again, with one log for all its lives."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.reaper import state_of

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.PyDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Child:
    """One program with its arguments."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether it should run: a supervisor starts it again if it ended by itself.
        self.wanted = False
        self.paused = False
        #: How it ended when nobody had asked it to.
        self.unexpected: list[int] = []
        #: What it had said in the life before this one, if that had ended by itself.
        self.last_words = ""
        self.starts = 0
        #: When the process that runs now was started; Unix time.
        self.started_at = 0.0

    @property
    def pid(self) -> int:
        """The process id, 0 if it never ran."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts + 1} at {time.time():.3f}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.starts += 1
        self.started_at = time.time()
        self.wanted, self.paused = True, False

    def tend(self) -> bool:
        """Start it again if it ended by itself; say whether it had."""
        if not self.wanted or self.running or self._process is None:
            return False
        self.unexpected.append(self._process.returncode)
        self.last_words = self.log.read_text(errors="replace").rpartition("--- start")[2]
        self.start()
        return True

    def tell(self, name: str, value: str) -> None:
        """Change its environment; it learns of that when it is started again."""
        self._environment[name] = value

    def kill(self) -> None:
        """End it at once, and keep it ended until `start`."""
        self.wanted = False
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()
        self.paused = False

    def pause(self) -> str:
        """Freeze it; return the state it is in then (T when frozen)."""
        if not self.running:
            return "X"
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True
        for _ in range(200):
            if state_of(self.pid) in "TX":
                break
            time.sleep(0.005)
        return state_of(self.pid)

    def resume(self) -> None:
        """Let it go on."""
        if self.paused and self.running:
            os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def terminate(self, patience: float) -> int | None:
        """Ask it to end; its exit code, or None if it had to be killed."""
        self.wanted = False
        if self._process is None or not self.running:
            return self._process.returncode if self._process else None
        self.resume()
        self._process.terminate()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
