"""NATS JetStream as broker."""
