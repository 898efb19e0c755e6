"""What operators see and do; the same behind every face, no terminal in here."""
