"""The same program in every mode, by a setting: what a newcomer changes to have its views at once."""

from __future__ import annotations

import json

import pytest

#: Behind the module that every desk has.
MAIN = """

async def main() -> None:
    async with app:
        for number in range(20):
            async with app.transaction(timeout=60) as tx:
                tx.record(UserCreated(number, "Ada"))
            seen = await users.get(number)
            assert not tx.late, tx.late
            assert seen == User(number, "Ada"), seen
    print("all seen at once")


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["wait", "inline"])
def test_one_setting_moves_the_same_program(desk, servers, make_app, mode):
    desk.extend(MAIN)
    make_app(name=desk.name)  # its slot goes at the end
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    desk.use(mode=mode)
    assert desk.do("init", "shop:app").code == 0
    desk.start("run", "shop:app").until("relay streaming")
    said = desk.run_program()
    assert said.out == "all seen at once\n", said.err
    status = json.loads(desk.do("status", "shop:app", "--json").out)
    states = {one["name"]: one["state"] for one in status["projections"]}
    assert states == {"user": "inline" if mode == "inline" else "following"}


def test_a_mode_that_there_is_not_is_refused_with_those_there_are(desk):
    desk.use(mode="sync", write_store="postgresql://h/db", broker="direct:", read_store="redis://h")
    said = desk.do("init", "shop:app")
    assert said.code == 1
    assert "READSIDE_MODE in the environment is 'sync'" in said.err
    assert "'async'" in said.err


def test_from_inline_to_waiting_init_says_what_has_to_be_done_first(desk, servers, make_app):
    make_app(name=desk.name)
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    assert desk.do("init", "shop:app", READSIDE_MODE="inline").code == 0
    said = desk.do("init", "shop:app", READSIDE_MODE="wait")
    assert said.code == 1
    assert "readside forget module:app user --documents" in said.err
    forget = ("forget", "shop:app", "user", "--documents", "--yes")
    assert desk.do(*forget, READSIDE_MODE="wait").code == 0
    assert desk.do("init", "shop:app", READSIDE_MODE="wait").code == 0
    desk.start("run", "shop:app", READSIDE_MODE="wait").until("relay streaming; user following")
