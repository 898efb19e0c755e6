"""Standing scenarios: one story each, on real servers, told the same way every time.

``python -m chaos --frozen 60``, ``--huge 1000000``, ``--lost dropped``, ``--deadly exit``; on both brokers.
"""

from __future__ import annotations

from chaos.options import Options
from chaos.reaper import adopt_orphans
from chaos.scenarios import deadly, frozen, huge, lost

_PLAYS = {"frozen": frozen.play, "huge": huge.play, "lost": lost.play, "deadly": deadly.play}


async def play(options: Options) -> int:
    """Play the scenario that is asked for; 0 right, 1 wrong, 2 if it showed nothing."""
    adopt_orphans()
    return await _PLAYS[options.scenario](options)
