"""What a feed asks the gateway for, in the words of either transport."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from runcast.client.errors import InvalidArgument
from runcast.client.options import joined


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A path with its parameters, and the same as fields of a WebSocket's ``subscribe``.

    ``of_runs``: a feed of runs; otherwise a stream.
    """

    path: str
    fields: Mapping[str, Any]
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def of_runs(self) -> bool:
        """Whether runs are asked for; otherwise the parts of a stream."""
        return "runs" in self.fields


def one_run(run_id: str, skip_columns: Sequence[str], *, stay: bool) -> Asked:
    """
    Ask for one run.

    Raises:
        InvalidArgument: The id is empty, or a column cannot be asked for.
    """
    asked = _asked(f"/realtime/v1/runs/{quoted(run_id)}", {"run": run_id}, {}, skip_columns)
    if not stay:
        return asked
    return Asked(asked.path, {**asked.fields, "stay": True}, {**asked.params, "stay": "true"})


def runs_of_batch(batch_id: str, skip_columns: Sequence[str]) -> Asked:
    """Ask for the runs of a batch; raises as `one_run`."""
    path = f"/realtime/v1/batches/{quoted(batch_id)}"
    return _asked(path, {"batch": batch_id}, {}, skip_columns)


def many_runs(
    skip_columns: Sequence[str],
    *,
    tags: Sequence[str] = (),
    task: str | None = None,
    since: str | None = None,
) -> Asked:
    """
    Ask for all runs with these tags, of this task, and created since.

    Raises:
        InvalidArgument: A tag or column cannot be asked for.
    """
    runs: dict[str, Any] = {}
    params: dict[str, str] = {}
    if tags:
        runs["tags"], params["tags"] = list(tags), joined("tags", tags)
    if task is not None:
        runs["task"] = params["task"] = task
    if since is not None:
        runs["createdAt"] = params["createdAt"] = since
    return _asked("/realtime/v1/runs", runs, params, skip_columns)


def stream(run_id: str, key: str) -> Asked:
    """Ask for a stream of a run."""
    path = f"/realtime/v1/streams/{quote(run_id, safe='')}/{quote(key, safe='')}"
    return Asked(path, {"stream": {"run": run_id, "key": key}})


def quoted(name: str) -> str:
    """
    Write an id as a part of a path.

    Raises:
        InvalidArgument: It is empty.
    """
    if not name:
        raise InvalidArgument("The id is empty.")
    return quote(name, safe="")


def _asked(
    path: str, runs: dict[str, Any], params: dict[str, str], skip_columns: Sequence[str]
) -> Asked:
    fields: dict[str, Any] = {"runs": runs}
    if skip_columns:
        fields["skipColumns"] = list(skip_columns)
        params = {**params, "skipColumns": joined("skip_columns", skip_columns)}
    return Asked(path, fields, params)
