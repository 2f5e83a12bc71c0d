"""How long tests wait for what a page in a browser is to show: only failures wait that long."""

from playwright.async_api import expect

__all__ = ["PATIENCE_MS", "expect"]

PATIENCE_MS = 30_000

expect.set_options(timeout=PATIENCE_MS)
