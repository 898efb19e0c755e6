"""Concerns around a port: same port in, same port out."""
