"""More processes for the projector side: one interpreter uses one core."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence

from readside.adapters.embedded.spawn import die_with
from readside.apps.process import FAILED
from readside.core.backoff import Backoff
from readside.core.errors import RefusedError
from readside.ports.ending import end

log = logging.getLogger("readside")

#: Seconds after which a process that ended had worked: the next one starts at once.
_WORKED = 30.0
#: Seconds in which a process says what it refuses: it does so before it looks at any event.
_STARTING = 3.0
#: Seconds between SIGTERM and SIGKILL when everything ends; less than we are given ourselves.
_PATIENCE = 0.4


async def workers(command: Sequence[str], count: int) -> None:
    """Keep `count` processes running until cancelled; one that dies is replaced.

    They end with this process, on Linux however it ends.

    Args:
        command: what to run; it writes its log to our standard error.
        count: of processes.

    Raises:
        RefusedError: one of them says that it cannot work; its own message is in the log.
    """
    tasks = [asyncio.create_task(_keep(command), name=f"worker {n}") for n in range(count)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(tasks)


async def _keep(command: Sequence[str]) -> None:
    backoff = Backoff(first=0.1, longest=10.0)
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        code = await _run_once(command)
        worked = loop.time() - began
        if code == FAILED and worked < _STARTING:
            raise RefusedError(
                "A projector process says that it cannot work.", mend="see its message above"
            )
        if worked > _WORKED:
            backoff.reset()
        # A handler that ends or hangs its process is found out by being tried again.
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        log.warning("a projector process %s; another one starts", how)
        await asyncio.sleep(backoff.next(0.5))


async def _run_once(command: Sequence[str]) -> int:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,  # the table is this process's
        start_new_session=True,  # a Ctrl-C reaches it through us, once
        preexec_fn=functools.partial(die_with, os.getpid(), int(signal.SIGKILL)),
    )
    log.debug("projector process %s", process.pid)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def command_of(target: str, *, verbose: bool) -> list[str]:
    """What runs one more projector process of an app."""
    command = [sys.executable, "-m", "readside", "run", target, "--role", "projector"]
    return [*command, "--verbose"] if verbose else command
