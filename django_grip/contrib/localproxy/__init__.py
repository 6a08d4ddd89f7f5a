"""A GRIP proxy in Python for development, tests, demos and one small machine."""
