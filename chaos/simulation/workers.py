"""Several seeds at a time: a pool of processes, whose results come in the order of the seeds."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing.synchronize import Event

from chaos.simulation.story import Outcome, simulate

#: Seeds in one errand of a worker: short, so that an end does not have to wait long.
_ERRAND = 8
#: Errands that lie ready for each worker.
_READY = 3


def outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """Run seeds on several cores; where it is closed, what was begun is ended and thrown away.

    What a seed comes to does not depend on the number of jobs.
    """
    if jobs == 1:
        _collect_rarely()
        yield from map(simulate, seeds)
        return
    # Not by fork: a worker begins from nothing, as a run of one seed does.
    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(ending,))
    try:
        for errand in _in_order(pool, iter(seeds), jobs * _READY):
            yield from errand
    finally:
        ending.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, seeds: Iterator[int], ready: int
) -> Iterator[list[Outcome]]:
    under_way: deque[Future[list[Outcome]]] = deque()
    while True:
        while len(under_way) < ready and (errand := list(islice(seeds, _ERRAND))):
            under_way.append(pool.submit(_run, errand))
        if not under_way:
            return
        yield under_way.popleft().result()


def _run(errand: list[int]) -> list[Outcome]:
    return [simulate(seed) for seed in errand if not _ending[0].is_set()]


#: In a worker: what tells it that nobody wants further seeds.
_ending: list[Event] = []


def _begin(ending: Event) -> None:
    """Leave Ctrl-C to the one that started this, and never outlive it."""
    _ending.append(ending)
    _collect_rarely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    threading.Thread(target=_follow, daemon=True).start()


def _collect_rarely() -> None:
    """A run makes and drops so many small things that looking for cycles took a fifth of its time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            parent.join()
        os._exit(1)
