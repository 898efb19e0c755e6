"""Vendors: one folder each, one file for each port it fills."""
