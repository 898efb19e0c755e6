"""Stage 2: source -> broker."""
