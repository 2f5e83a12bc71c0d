"""The settings as a command takes them: from its flags and the environment."""

import os

from runcast.cli.console import say
from runcast.settings import Settings, load_settings, unknown_variables


def read_settings(**flags: object) -> Settings:
    """
    Load the settings and warn of variables that look like ours and are not.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    for name, nearest in unknown_variables(os.environ).items():
        hint = f"; did you mean {nearest}?" if nearest else ""
        say(f"warning: nothing reads {name}{hint}")
    return load_settings(**flags)
