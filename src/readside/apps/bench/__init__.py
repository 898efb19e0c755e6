"""``readside bench``: how fast readside is on this machine, beside what PostgreSQL itself can send."""

from readside.apps.bench.course import bench

__all__ = ["bench"]
