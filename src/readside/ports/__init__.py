"""The contracts between the stages and the servers: source, broker, store, and readside's own notes."""
