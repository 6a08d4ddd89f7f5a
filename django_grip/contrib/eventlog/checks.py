"""System checks of the event log."""
