"""Shipped for tests of adapters and of applications: conformance suites, clocks, faults."""
