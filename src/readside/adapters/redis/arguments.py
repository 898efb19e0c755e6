"""A batch as keys and arguments of the script apply.lua."""

from __future__ import annotations

from itertools import chain

from readside.core.folding import Batch


def name_of(app: str, projection: str, what: str) -> str:
    """The name of one of readside's own keys."""
    return f"readside:{app}:{projection}:{what}"


def arguments_of(batch: Batch, app: str) -> tuple[list[str], list[str | bytes]]:
    """The keys and the arguments; what they mean, the script says."""
    name, partition = batch.projection, batch.partition
    keys = [name_of(app, name, what) for what in ("checkpoints", "positions", "parked")]
    values: list[str | bytes] = [
        str(partition),
        batch.expected.encode() if batch.expected else "",
        batch.checkpoint.encode() if batch.checkpoint else "",
        "overwrite" if batch.overwrites else "",
    ]
    if batch.writes:
        # In columns, so that the script can hand whole stretches on.
        fields, expected, positions, documents = zip(*batch.writes, strict=True)
        keys += [f"{name}:{field}" for field in fields]
        if not batch.overwrites:
            values += expected
        values += chain.from_iterable(zip(fields, positions, strict=True))
        values += [document or b"" for document in documents]
    for key, parking in batch.parked:
        values += (key, f"{partition}:{parking}")
    return keys, values
