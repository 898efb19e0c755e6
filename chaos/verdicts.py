"""The five wrongs, counted, with the first examples of each."""

from __future__ import annotations

from collections import Counter

KINDS = ("lost", "phantom", "double_applied", "order_violations", "stale_reads")
_EXAMPLES = 40


class Verdicts:
    """Counts wrongs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []

    def add(self, kind: str, words: str, count: int = 1) -> None:
        """Note wrongs of one kind."""
        if kind not in KINDS:
            raise ValueError(kind)
        if count > 0:
            self.counts[kind] += count
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{kind} ({count}): {words}")

    @property
    def wrong(self) -> bool:
        """Whether there is any."""
        return any(self.counts.values())
