"""A run as a line: readable, short, and harmless."""

from hypothesis import given, strategies as st

from runcast.cli.run_line import run_line


def test_a_line_says_what_changed() -> None:
    line = run_line(
        {
            "id": "run_1",
            "taskIdentifier": "render",
            "status": "FAILED",
            "updatedAt": "2026-01-02T03:04:05.678Z",
            "metadata": {"progress": 40, "step": "scaling", "list": [1, 2]},
            "error": {"message": "No space left."},
            "tags": ["demo", "user:42"],
        }
    )
    assert line.plain == (
        "03:04:05 run_1 render FAILED       progress=40 step=scaling list=[1, 2]"
        " No space left. #demo #user:42"
    )


def test_long_values_are_cut() -> None:
    line = run_line({"id": "run_1", "status": "EXECUTING", "metadata": {"text": "x" * 1000}})
    assert line.plain.endswith("x" * 47 + "…")


@given(st.text(), st.text(), st.text())
def test_no_text_of_a_run_steers_the_terminal(key: str, value: str, tag: str) -> None:
    line = run_line(
        {
            "id": value,
            "taskIdentifier": tag,
            "status": value,
            "updatedAt": value,
            "metadata": {key: value},
            "error": {"message": value},
            "tags": [tag],
        }
    )
    assert line.plain.isprintable()
