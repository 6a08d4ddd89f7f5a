"""Read-only admin pages of the event log."""
