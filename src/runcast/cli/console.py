"""How commands speak: results go to standard output, everything else to standard error."""

import sys

import typer


def result(text: str) -> None:
    """Write what was asked for."""
    typer.echo(text)


def say(text: str) -> None:
    """Tell the person at the terminal something; never mixed with results."""
    typer.echo(text, err=True)


def fail(message: str) -> None:
    """Say what went wrong."""
    typer.echo(f"runcast: {message}", err=True)


def printable(text: str) -> str:
    """Replace what could steer a terminal: runs carry text of strangers."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def is_terminal() -> bool:
    """Tell whether results are read by a person, and may be coloured."""
    return sys.stdout.isatty()
