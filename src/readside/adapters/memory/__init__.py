"""Everything in memory: for tests and for the simulation."""
