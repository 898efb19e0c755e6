"""No broker: relay and projectors in one process."""
