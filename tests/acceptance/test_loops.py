"""An app that is used in several event loops has connections of its own in each."""

from __future__ import annotations

import asyncio

import readside


async def test_a_loop_in_another_thread_leaves_the_connections_of_this_one(unique: str) -> None:
    app = readside.App(unique)
    here = await app.runtime()
    there = await asyncio.to_thread(lambda: asyncio.run(app.runtime()))
    assert there is not here
    assert await app.runtime() is here
    await app.close()
    assert await app.runtime() is not here
