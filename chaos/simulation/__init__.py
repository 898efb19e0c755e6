"""The real relay and projectors against models that lie, in virtual time: a seed is a run, exactly.

python -m chaos --simulate --seeds 100        seeds 1 to 100
python -m chaos --simulate --seed 42          one of them again, with its faults listed
python -m chaos --simulate --every-death      one short story, with a death at each I/O boundary
"""

from chaos.simulation.command import main

__all__ = ["main"]
