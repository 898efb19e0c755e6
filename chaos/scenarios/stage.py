"""What all scenarios share: a world for the time of the story, and a report at its end."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chaos.options import Options
from chaos.reaper import awaited
from chaos.timeline import say
from chaos.world import Cast, World


class Story:
    """What a scenario has found; printed as JSON on the last line."""

    def __init__(self, options: Options) -> None:
        self.found: dict[str, Any] = {"scenario": options.scenario, "broker": options.broker}
        #: What is wrong with readside.
        self.wrong: list[str] = []
        #: Why the story proves nothing, although nothing was wrong.
        self.invalid: list[str] = []
        self._began = time.monotonic()

    def tell(self, words: str) -> None:
        """Say how the story goes on."""
        say(f"{time.monotonic() - self._began:6.1f}s  {words}")

    def expect(self, right: object, words: str) -> None:
        """Note what is wrong, unless it is right."""
        if not right:
            self.wrong.append(words)
            self.tell(f"WRONG: {words}")

    def note(self, **found: Any) -> None:
        """Put something into the report."""
        self.found |= found

    @property
    def code(self) -> int:
        """0 right, 1 wrong, 2 without proof."""
        return 1 if self.wrong else 2 if self.invalid else 0

    def end(self) -> None:
        """Print the report."""
        verdicts = {"right": not self.wrong and not self.invalid, "wrong": self.wrong}
        print(json.dumps(self.found | verdicts | {"invalid_because": self.invalid}), flush=True)


@asynccontextmanager
async def stage(options: Options, cast: Cast, story: Story) -> AsyncIterator[World]:
    """A world with everything running; what it wrote is kept if the story went wrong."""
    directory = Path(tempfile.mkdtemp(prefix="readside-chaos-"))
    world = World(options, directory, cast)
    try:
        await world.start()
        yield world
    except BaseException:
        story.wrong.append("the scenario itself broke off")
        raise
    finally:
        world.stop()
        if story.wrong and options.keep is not None:
            shutil.copytree(
                directory, options.keep, dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("postgres", "nats", "valkey"),
            )  # fmt: skip
        shutil.rmtree(directory, ignore_errors=True)


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> float | None:
    """Wait until something is so; after how many seconds it was, None if never."""
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > seconds:
            return None
        await asyncio.sleep(0.1)
    return round(time.monotonic() - began, 2)


async def readside(world: World, *arguments: str) -> tuple[int, str]:
    """Run readside's own command, as an operator would; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "readside", *arguments,
        env=world.environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    with awaited(process.pid):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


async def status(world: World) -> Any:
    """What ``readside status --json`` tells; None if it cannot."""
    _, output = await readside(world, "status", world.cast.app, "--json")
    for line in reversed(output.splitlines()):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None


def crew(options: Options) -> tuple[tuple[str, str], ...]:
    """Two workers, and a relay beside them where there is a broker."""
    if options.broker == "direct":
        return (("one", "all"), ("two", "all"))
    return (("relay", "relay"), ("one", "projector"), ("two", "projector"))
