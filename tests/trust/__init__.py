"""Who belongs to a pool, and who does not."""
