"""The course of the demo, and what it prints."""

from __future__ import annotations

import asyncio
import logging
import sys
from statistics import median
from typing import Any

import msgspec
from rich.console import Console

from readside.adapters.embedded import EmbeddedServers
from readside.apps.demo.check import Verdict, check
from readside.apps.demo.follow import follow
from readside.apps.demo.shop import Shop
from readside.apps.demo.traffic import Traffic
from readside.core.errors import SettingsError
from readside.ports.ending import end
from readside.service import Service
from readside.wrappers.timed import STAGES, Stopwatch


async def show(*, users: int, rate: int, broker: str, json: bool, keep: bool) -> int:
    """Run the demo; returns 0 only if every user is in the read store and right."""
    if users < 1 or rate < 1:
        raise SettingsError("users and rate count from 1.")
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    console = Console(quiet=json, highlight=False, soft_wrap=True)
    console.print("[dim]starting PostgreSQL, NATS and Valkey …[/dim]")
    wanted = frozenset({"postgres", "valkey"} | ({"nats"} if broker == "nats" else set()))
    async with EmbeddedServers(None, services=wanted) as addresses:
        url = addresses.broker if broker == "nats" else "direct:"
        shop = Shop(addresses.write_store, url, addresses.read_store)
        watch = Stopwatch()
        service = Service(await shop.app.runtime(), shop.app.projections, watch=watch)
        try:
            await shop.install()
            roles = asyncio.create_task(service.run())
            try:
                result = await _course(shop, url, service, watch, console, users, rate)
                if json:
                    print(msgspec.json.encode(result).decode(), flush=True)
                if keep:
                    await _stay(addresses, url, console)
            finally:
                await end([roles])
        finally:
            await shop.app.close()
    return 0 if not result["missing"] and not result["mismatched"] else 1


async def _course(
    shop: Shop,
    url: str,
    service: Service,
    watch: Stopwatch,
    console: Console,
    users: int,
    rate: int,
) -> dict[str, Any]:
    addresses = await (await shop.app.runtime()).addresses()
    await service.ready.wait()
    console.print("\n[bold]One user, step by step[/bold]")
    for what, value in await follow(shop, addresses.write_store, url, addresses.read_store):
        console.print(f"  [dim]{what}[/dim]\n    {value}", markup=True)
    watch.clear()
    console.print(f"\n[bold]{users} users at {rate} a second[/bold]")
    traffic = Traffic(shop, users, rate)
    await traffic.run(lambda now: _tell(console, now, users))
    if console.is_terminal:
        console.print()
    verdict = await check(addresses.write_store, addresses.read_store)
    result = _result(verdict, traffic, watch)
    _conclude(console, result)
    return result


def _tell(console: Console, now: Traffic, users: int) -> None:
    seen = len(now.latencies)
    text = (
        f"  committed {now.committed}/{users}   readable {seen}"
        f"   p50 {now.percentile(0.5):.1f} ms   p99 {now.percentile(0.99):.1f} ms"
    )
    if console.is_terminal:
        console.print(f"\r{text}   ", end="")
    elif seen == users:
        console.print(text)


def _result(verdict: Verdict, traffic: Traffic, watch: Stopwatch) -> dict[str, Any]:
    stages = {
        stage: round(median(watch.samples[stage]) * 1000, 2)
        for stage in STAGES
        if watch.samples[stage]
    }
    return {
        **verdict._asdict(),
        "events_per_second": round(len(traffic.latencies) / traffic.seconds, 1)
        if traffic.seconds
        else 0,
        "latency_ms": {
            "p50": traffic.percentile(0.5),
            "p90": traffic.percentile(0.9),
            "p99": traffic.percentile(0.99),
        },
        "stages_ms_p50": stages,
        "python": sys.version.split()[0],
    }


def _conclude(console: Console, result: dict[str, Any]) -> None:
    latency = result["latency_ms"]
    console.print(
        f"  {result['events_per_second']} events a second;"
        f" commit to readable: p50 {latency['p50']} ms, p99 {latency['p99']} ms"
    )
    for stage, value in result["stages_ms_p50"].items():
        console.print(f"    [dim]{stage:<20}[/dim] {value} ms")
    console.print("\n[bold]Every user of the table against its document[/bold]")
    colour = "green" if not result["missing"] and not result["mismatched"] else "red"
    console.print(
        f"  [{colour}]{result['committed']} committed, {result['in_read_store']} in the read store,"
        f" {result['missing']} missing, {result['mismatched']} mismatched[/{colour}]"
    )


async def _stay(addresses: Any, url: str, console: Console) -> None:
    host, _, port = addresses.read_store.removeprefix("redis://").removesuffix("/0").partition(":")
    console.print("\n[bold]Have a look[/bold] [dim](Ctrl-C ends everything)[/dim]")
    console.print(f"  psql {addresses.write_store} -c 'TABLE users LIMIT 5'")
    if url.startswith("nats"):
        console.print(f"  nats --server {url} stream view readside_shop")
    console.print(f"  valkey-cli -h {host} -p {port} GET user:1")
    await asyncio.Event().wait()
