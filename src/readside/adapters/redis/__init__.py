"""Redis and Valkey as read store."""
