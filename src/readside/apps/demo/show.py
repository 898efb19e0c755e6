"""The course of the demo, and what it prints."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from statistics import median
from typing import Any, NamedTuple

import msgspec
import psycopg
from redis import RedisError
from rich.console import Console

from readside.adapters.embedded import Addresses, EmbeddedServers
from readside.apps import hints
from readside.apps.demo.check import Verdict, check
from readside.apps.demo.documents import TABLE
from readside.apps.demo.follow import follow
from readside.apps.demo.shop import Shop
from readside.apps.demo.ticker import Ticker
from readside.apps.demo.traffic import Traffic
from readside.apps.journal import journal
from readside.core.errors import SettingsError, UnavailableError
from readside.ports.ending import end
from readside.service import Service
from readside.wrappers.timed import STAGES, Stopwatch


class _Plan(NamedTuple):
    users: int
    rate: int
    json: bool
    keep: bool


async def show(*, users: int, rate: int, broker: str, store: str, json: bool, keep: bool) -> int:
    """Run the demo; returns 0 only if every user is in the read store and right."""
    if users < 1 or rate < 1:
        raise SettingsError("users and rate count from 1.", mend="leave them out, to begin with")
    journal(logging.WARNING, "%(levelname)s %(message)s")
    console = Console(quiet=json, highlight=False, soft_wrap=True)
    wanted = {"postgres": "PostgreSQL", "nats": "NATS", "valkey": "Valkey"}
    if broker != "nats":
        del wanted["nats"]
    if store != "valkey":
        del wanted["valkey"]
    names = ", ".join(wanted.values())
    console.print(f"starting {names} in a temporary directory …", style="dim")
    began = time.perf_counter()
    async with EmbeddedServers(None, services=frozenset(wanted)) as found:
        console.print(f"all there after {time.perf_counter() - began:.1f} s", style="dim")
        addresses = Addresses(
            found.write_store,
            found.broker if broker == "nats" else "direct:",
            found.read_store if store == "valkey" else found.write_store,
        )
        try:
            verdict = await _with_service(addresses, console, _Plan(users, rate, json, keep))
        except (psycopg.Error, RedisError, OSError, TimeoutError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise UnavailableError(
                f"A server of the demo went away: {text}.", mend="run it again"
            ) from error
    return 0 if verdict.good else 1


async def _with_service(addresses: Addresses, console: Console, plan: _Plan) -> Verdict:
    shop = Shop(addresses.write_store, addresses.broker, addresses.read_store)
    watch = Stopwatch()
    service = Service(await shop.app.runtime(), shop.app.projections, watch=watch)
    try:
        await shop.install()
        roles = asyncio.create_task(service.run())
        course = asyncio.create_task(_course(shop, addresses, service, watch, console, plan))
        try:
            await asyncio.wait({roles, course}, return_when=asyncio.FIRST_COMPLETED)
            if roles.done():
                roles.result()  # it runs until cancelled: this raises
            return course.result()
        finally:
            await end([course, roles])
    finally:
        await shop.app.close()


async def _course(
    shop: Shop,
    addresses: Addresses,
    service: Service,
    watch: Stopwatch,
    console: Console,
    plan: _Plan,
) -> Verdict:
    await service.ready.wait()
    console.print("\n[bold]One user, step by step[/bold]")
    for what, value in await follow(shop, *_urls(addresses)):
        console.print(f"  {what}", style="dim")
        for line in value.splitlines():
            console.print(f"    {line}", markup=False)
    watch.clear()
    console.print(f"\n[bold]{plan.users} users at {plan.rate} a second[/bold]")
    traffic = Traffic(shop, plan.users, plan.rate)
    with Ticker(console) as ticker:
        await traffic.run(lambda now, last: ticker.show(now.line(), last=last))
    verdict = await check(addresses.write_store, addresses.read_store)
    result = _result(verdict, traffic, watch)
    _conclude(console, result, verdict, plan)
    if plan.keep:
        result["addresses"] = addresses
    if plan.json:
        print(msgspec.json.encode(result).decode(), flush=True)
    if plan.keep:
        _tell(addresses, console)
        await asyncio.Event().wait()
    return verdict


def _urls(addresses: Addresses) -> tuple[str, str, str]:
    return addresses.write_store, addresses.broker, addresses.read_store


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


def _conclude(console: Console, result: dict[str, Any], verdict: Verdict, plan: _Plan) -> None:
    latency = result["latency_ms"]
    speed = result["events_per_second"]
    slower = "" if speed > 0.9 * plan.rate else ", all that this machine can do now"
    console.print(f"  {speed} events a second{slower}")
    console.print(
        f"  commit to readable: p50 {latency['p50']} ms, p90 {latency['p90']} ms, p99 {latency['p99']} ms"
    )
    for stage, value in result["stages_ms_p50"].items():
        console.print(f"    {stage:<20} {value:>7.2f} ms", style="dim")
    console.print("\n[bold]Every row of the table against its document[/bold]")
    colour = "green" if verdict.good else "red"
    console.print(
        f"  {verdict.committed} committed, {verdict.in_read_store} in the read store,"
        f" {verdict.missing} missing, {verdict.mismatched} mismatched",
        style=colour,
    )


def _tell(addresses: Addresses, console: Console) -> None:
    write_store, broker, read_store = _urls(addresses)
    lines = [hints.psql(write_store, "-c", "TABLE users LIMIT 5")]
    lines.append(hints.psql(write_store, "-c", "SELECT * FROM readside.outbox LIMIT 5"))
    if broker.startswith("nats"):
        lines.append(
            hints.nats(broker, "stream", "get", "readside_shop", "--last-for", "*.*.user.created")
        )
    if read_store.startswith("postgresql"):
        lines.append(hints.psql(read_store, "-c", f"SELECT * FROM {TABLE} LIMIT 5"))
    else:
        lines.append(hints.valkey(read_store, "GET", "user:1"))
    console.print("\n[bold]Have a look[/bold]  (Ctrl-C ends everything)")
    for line in lines:
        console.print(f"  {line}", markup=False)
    if missing := hints.missing_clients():
        console.print(f"  ({missing})", style="dim")
