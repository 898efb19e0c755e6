"""Chaos: real servers, real processes, a seeded schedule of faults, and an oracle which is PostgreSQL itself."""
