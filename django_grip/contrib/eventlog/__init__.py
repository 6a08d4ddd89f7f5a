"""The event log: committed changes in one order, kept for those who missed some."""
