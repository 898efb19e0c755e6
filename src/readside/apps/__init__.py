"""Faces: parse, call, render."""
