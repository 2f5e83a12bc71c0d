"""Tests of runcast, in folders by what they touch (see CONTRIBUTING.md)."""
