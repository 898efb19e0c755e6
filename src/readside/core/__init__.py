"""The rules: values and pure decisions; no I/O, no clock, no event loop, no vendor."""
