"""``python -m proofs reads``, ``latency`` or ``polling``: exit code 1 if what is claimed does not hold."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from proofs.figures import Row, table
from proofs.latency import latency
from proofs.polling import polling
from proofs.reads import reads
from proofs.ways import Place, opened, ways
from readside.adapters.embedded import EmbeddedServers

Proof = Callable[[Place, float], Awaitable[tuple[Row, list[str]]]]


def main() -> int:
    """Do what is asked; 0 if it holds."""
    parser = argparse.ArgumentParser(prog="python -m proofs")
    parser.add_argument("--json", action="store_true", help="nothing but JSON")
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("reads", "latency"):
        one = parts.add_parser(name)
        one.add_argument("--seconds", type=float, default=30.0, help="in each way")
        one.add_argument("--only", default="", help="ways whose name has this, polling-direct")
    one = parts.add_parser("polling")
    one.add_argument("--rows", type=int, default=2_000_000, help="published and retained")
    one.add_argument("--seconds", type=float, default=30.0, help="that a transaction is open")
    one.add_argument("--short", type=int, default=1000, help="transactions beside it")
    return asyncio.run(_do(parser.parse_args()))


async def _do(options: argparse.Namespace) -> int:
    where = {
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }
    if options.part == "polling":
        found, wrong = await polling(options.rows, options.seconds, options.short)
        tables = [found["looks"], [found["retained"]], [found["held"]], *found["plans"].values()]
    else:
        proof = reads if options.part == "reads" else latency
        rows, wrong = await _in_all_ways(options, proof)
        found, tables = {"ways": rows}, [rows]
    report: dict[str, Any] = {**where, "part": options.part, **found, "wrong": wrong}
    if options.json:
        print(json.dumps(report))
    else:
        print(*where.values(), sep=", ")
        print(*(f"\n{table(rows)}" for rows in tables), sep="\n")
        print(*(f"\nWRONG: {what}" for what in wrong), sep="")
    return 1 if wrong else 0


async def _in_all_ways(options: argparse.Namespace, proof: Proof) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    wrong: list[str] = []
    # Durable, as a user's are: the commit's flush to disk is part of every figure.
    async with EmbeddedServers(None, durable=True) as servers:
        for way in ways():
            if options.only not in str(way):
                continue
            async with opened(way, servers) as place:
                row, complaints = await proof(place, options.seconds)
            load = round(os.getloadavg()[0], 2)
            rows.append({**row, "load": load})
            wrong += [f"{way}: {what}" for what in complaints]
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows, wrong


if __name__ == "__main__":
    sys.exit(main())
