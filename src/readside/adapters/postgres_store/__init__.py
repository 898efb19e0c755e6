"""PostgreSQL as read store: a table for each projection, a row for each document."""
