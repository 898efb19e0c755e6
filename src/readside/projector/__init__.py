"""Stage 3: broker -> store."""
