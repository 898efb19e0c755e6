"""PostgreSQL: write store, source of events, and keeper of readside's own notes."""
