"""Stage 4: store -> reader."""
