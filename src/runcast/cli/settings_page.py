"""The page docs/settings.md, made of the settings themselves."""

from pydantic.fields import FieldInfo

from runcast.settings import OTHER_VARIABLES, Settings, allowed_values, number_text, variables_of

_KIB = 1024
_MIB = 1024 * 1024


def settings_page() -> str:
    """Return docs/settings.md."""
    return "\n".join(
        [
            "# Settings",
            "",
            "A gateway reads its settings from environment variables when it starts; flags of the",
            "command line win. An empty variable counts as not set. Wrong values are refused with",
            "a message that names the variable. Sizes are in bytes, times in seconds.",
            "",
            "This page is generated: `runcast doctor --settings > docs/settings.md`.",
            "",
            "| variable | default | allowed | meaning |",
            "| --- | --- | --- | --- |",
            *(_row(name, field) for name, field in Settings.model_fields.items()),
            "",
            "Other variables, not read by the gateway itself:",
            "",
            "| variable | meaning |",
            "| --- | --- |",
            *(f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()),
            "",
        ]
    )


def _row(name: str, field: FieldInfo) -> str:
    variables = " or ".join(f"`{variable}`" for variable in variables_of(name))
    default = _shown(name, field.default)
    return f"| {variables} | {default} | {allowed_values(name)} | {field.description} |"


def _shown(name: str, default: object) -> str:
    if isinstance(default, int | float):
        size = f" ({_size(int(default))})" if name.endswith("_bytes") else ""
        return f"`{number_text(default)}`{size}"
    return f"`{default}`" if default else "none"


def _size(value: int) -> str:
    return f"{value // _MIB} MiB" if value % _MIB == 0 else f"{value // _KIB} KiB"
