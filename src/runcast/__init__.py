"""Runcast: background runs, live in a browser."""
