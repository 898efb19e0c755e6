"""The service of the shop, in a process of its own, as a user runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proofs.ways import Place


@asynccontextmanager
async def service(place: Place) -> AsyncIterator[None]:
    """`readside run`, until the end of the block; nothing where commands fold by themselves.

    Raises:
        RuntimeError: it did not last so long.
    """
    if place.way.mode == "inline":
        yield
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "readside", "run", "examples.shop:app",
        env=os.environ | place.settings, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
        if process.returncode is not None:
            raise RuntimeError(f"the service has ended with {process.returncode}")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
