"""Stage 1: command -> transaction -> outbox."""
