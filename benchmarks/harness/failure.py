"""Errors of the benchmarks themselves."""


class BenchmarkError(Exception):
    """A measurement could not be taken; the message says why, and what helps."""


class Unavailable(Exception):
    """A peer is not here; the message says what to install. The others are measured without it."""
