"""Compares the read store with the oracle when everything is quiet."""

from __future__ import annotations

from typing import Any

from chaos.documents import opened
from chaos.oracle import Oracle
from chaos.verdicts import Verdicts

_PATIENCE = 10.0


def compare(url: str, oracle: Oracle) -> Verdicts:
    """Look at every document, and for documents that should not be there."""
    verdicts = Verdicts()
    documents = read_documents(url)
    for key, marks in oracle.lists.items():
        found = documents.pop(f"lists:{key}", None)
        actual = None if found is None else found["marks"]
        _list(verdicts, f"lists:{key}", marks, actual, oracle.known(key))
    for key, register in oracle.registers.items():
        found = documents.pop(f"registers:{key}", None)
        last = None if found is None else (found["version"], found["mark"])
        _register(verdicts, f"registers:{key}", register, last)
    expected = {f"counters:{key}": count for key, count in oracle.counters.items()}
    expected |= {
        f"totals:{key}": (count, total) for key, (count, total) in oracle.totals.items() if count
    }
    for name, count in expected.items():
        _count(verdicts, name, count, documents.pop(name, None))
    for pair, streams in oracle.pairs.items():
        found = (documents.pop(f"pairs:{pair}", None) or {"streams": {}})["streams"]
        for stream in streams.keys() | found.keys():
            wanted = streams.get(stream)
            known = oracle.known(stream)
            _list(verdicts, f"pairs:{pair}:{stream}", wanted, found.get(stream), known)
    for name in documents:
        verdicts.add("phantom", f"{name} should not exist")
    return verdicts


def read_documents(url: str) -> dict[str, Any]:
    """All documents of all projections, decoded."""
    with opened(url, _PATIENCE) as documents:
        return documents.all()


def _list(
    verdicts: Verdicts,
    name: str,
    expected: list[int] | None,
    actual: list[int] | None,
    known: set[int],
) -> None:
    if expected == actual:
        return
    wanted, found = expected or [], actual or []
    strange = [mark for mark in found if mark not in known]
    verdicts.add("phantom", f"{name} has marks that never were: {strange[:3]}", len(strange))
    twice = len(found) - len(set(found))
    verdicts.add("double_applied", f"{name} has marks twice", twice)
    missing = [place for place, mark in enumerate(wanted, 1) if mark not in set(found)]
    verdicts.add("lost", f"{name} lacks {missing[:5]} of {len(wanted)}", len(missing))
    over = (set(found) & known) - set(wanted)
    verdicts.add("phantom", f"{name} has marks from before it was erased", len(over))
    if not (strange or twice or missing or over):
        verdicts.add("order_violations", f"{name} has its marks in another order")


def _register(
    verdicts: Verdicts,
    name: str,
    expected: tuple[int, int] | None,
    actual: tuple[int, int] | None,
) -> None:
    if expected == actual:
        return
    if expected is None:
        verdicts.add("phantom", f"{name} should be erased and is {actual}")
    elif actual is None or actual[0] < expected[0]:
        verdicts.add("lost", f"{name} is {actual}, not {expected}")
    else:
        verdicts.add("phantom", f"{name} is {actual}, not {expected}")


def _count(
    verdicts: Verdicts, name: str, expected: tuple[int, int] | None, found: dict[str, int] | None
) -> None:
    wanted = expected or (0, 0)
    actual = (0, 0) if found is None else (found["count"], found["total"])
    if wanted == actual:
        return
    verdicts.add("lost", f"{name} is {actual}, not {wanted}", wanted[0] - actual[0])
    verdicts.add("double_applied", f"{name} is {actual}, not {wanted}", actual[0] - wanted[0])
    if wanted[0] == actual[0]:
        verdicts.add("phantom", f"{name} counts other events: {actual}, not {wanted}")
