"""Proofs on real servers, of what the documentation says with figures; outside of the package.

``python -m proofs reads``, ``polling`` and ``latency``.
"""
