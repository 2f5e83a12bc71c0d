"""``client.runs``: reading, changing, following and producing runs."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from runcast.client.asked import Asked, many_runs, one_run, quoted, runs_of_batch
from runcast.client.clock import now
from runcast.client.errors import InvalidArgument, UnexpectedAnswer
from runcast.client.feeds import Feeds
from runcast.client.gateway_http import GatewayHttp
from runcast.client.listing import Listing
from runcast.client.options import (
    RunChanges,
    RunFilters,
    Span,
    TriggerOptions,
    change_body,
    filter_params,
    trigger_body,
)
from runcast.client.run import Run, RunHandle, run_from
from runcast.client.run_writer import RunWriter
from runcast.client.subscription import Subscription
from runcast.client.tasks import Tasks
from runcast.core.timespan import parse_duration
from runcast.errors import InvalidParameter


class Runs:
    """
    Runs of the environment that the key or token is for.

    The ``subscribe`` methods need no ``await``: they give a `Subscription` to loop over. All take
    ``cursor`` (of an earlier subscription, to go on from) and ``skip_columns`` (fields that are
    not needed, such as ``payload``).
    """

    def __init__(self, http: GatewayHttp, tasks: Tasks, feeds: Feeds) -> None:
        self._http = http
        self._feeds = feeds
        self._tasks = tasks

    async def retrieve(self, run_id: str) -> Run:
        """
        Give a run as it is now.

        Raises:
            ApiError: The gateway refused; `NotFound`: there is no such run.
            ConnectionLost: It could not be reached.
        """
        return run_from(await self._http.get(f"/api/v3/runs/{quoted(run_id)}"))

    def list(self, *, page_size: int = 25, **filters: Unpack[RunFilters]) -> Listing:
        """
        List runs, newest first: loop over the answer, or ask it for a ``page()``.

        Raises:
            InvalidArgument: A filter cannot be sent.
        """
        return Listing(self._http, filter_params(filters), page_size)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run and all below it; one that is finished stays as it is. Raises `ApiError`."""
        await self._http.request("POST", f"/api/v2/runs/{quoted(run_id)}/cancel")

    async def replay(self, run_id: str) -> str:
        """Run once more what a run was; gives the id of the new run. Raises `ApiError`."""
        told = await self._http.send("POST", f"/api/v1/runs/{quoted(run_id)}/replay")
        try:
            return str(told["id"])
        except KeyError as error:
            raise UnexpectedAnswer("The gateway's answer to a replay has no id.") from error

    async def reschedule(self, run_id: str, delay: Span | datetime) -> Run:
        """
        Give a run that is DELAYED another time: a length of time from now, or a time.

        Raises:
            InvalidArgument: The delay cannot be sent.
            ApiError: The gateway refused, as for a run that does not wait for its time.
            ConnectionLost: It could not be reached.
        """
        body = {"delay": trigger_body(None, {"delay": delay})["options"]["delay"]}
        return run_from(
            await self._http.send("POST", f"/api/v1/runs/{quoted(run_id)}/reschedule", body)
        )

    async def reset_idempotency_key(self, task: str, key: str) -> None:
        """Let the next trigger of the task with this key make a new run. Raises `ApiError`."""
        path = f"/api/v1/idempotencyKeys/{quoted(key)}/reset"
        await self._http.send("POST", path, {"taskIdentifier": task})

    async def update(self, run_id: str, **changes: Unpack[RunChanges]) -> Run:
        """
        Change a run, as its worker does, and give it as it is then; see `RunChanges`.

        Raises:
            InvalidArgument: A value cannot be sent.
            ApiError: The gateway refused; `IllegalTransition`: the run cannot take that status.
            ConnectionLost: It could not be reached.
        """
        return run_from(
            await self._http.send("PATCH", f"/api/v1/runs/{quoted(run_id)}", change_body(changes))
        )

    async def add_tags(self, run_id: str, *tags: str) -> None:
        """Add tags to a run; those that it has are no error. Raises `ApiError`."""
        await self._http.send("POST", f"/api/v1/runs/{quoted(run_id)}/tags", {"tags": list(tags)})

    def subscribe(
        self,
        run: str | RunHandle,
        *,
        stay: bool = False,
        cursor: str | None = None,
        skip_columns: Iterable[str] = (),
    ) -> Subscription:
        """Follow one run until it is finished, or with ``stay`` beyond."""
        run_id = run.id if isinstance(run, RunHandle) else run
        return self._subscription(one_run(run_id, _columns(skip_columns), stay=stay), cursor)

    def subscribe_tags(
        self,
        *tags: str,
        task: str | None = None,
        since: Span | datetime | None = None,
        cursor: str | None = None,
        skip_columns: Iterable[str] = (),
    ) -> Subscription:
        """Follow runs that have all of these tags; ``since``: only those created since then."""
        if not tags:
            raise InvalidArgument("Name the tags; subscribe_all() follows every run.")
        asked = many_runs(_columns(skip_columns), tags=tags, task=task, since=_since(since))
        return self._subscription(asked, cursor)

    def subscribe_task(
        self,
        task: str,
        *,
        since: Span | datetime | None = None,
        cursor: str | None = None,
        skip_columns: Iterable[str] = (),
    ) -> Subscription:
        """Follow the runs of a task."""
        asked = many_runs(_columns(skip_columns), task=task, since=_since(since))
        return self._subscription(asked, cursor)

    def subscribe_batch(
        self, batch_id: str, *, cursor: str | None = None, skip_columns: Iterable[str] = ()
    ) -> Subscription:
        """Follow the runs of a batch."""
        return self._subscription(runs_of_batch(batch_id, _columns(skip_columns)), cursor)

    def subscribe_all(
        self,
        *,
        since: Span | datetime | None = None,
        cursor: str | None = None,
        skip_columns: Iterable[str] = (),
    ) -> Subscription:
        """Follow every run of the environment."""
        return self._subscription(many_runs(_columns(skip_columns), since=_since(since)), cursor)

    def start(self, task: str, payload: Any = None, **options: Unpack[TriggerOptions]) -> RunWriter:
        """
        Create a run and carry it out here: ``async with client.runs.start("chat") as run``.

        The run is created when the context is entered. See `RunWriter`.
        """

        async def create() -> RunHandle:
            return await self._tasks.trigger(task, payload, **options)

        return RunWriter(self._http, create)

    def take(self, run: str | RunHandle) -> RunWriter:
        """
        Carry out a run that exists: ``async with client.runs.take(run_id) as run``.

        Who takes a run is not the gateway's to arbitrate: whatever hands out work decides. See
        `RunWriter`.
        """
        return RunWriter(self._http, run)

    def _subscription(self, asked: Asked, cursor: str | None) -> Subscription:
        return Subscription(self._feeds, asked, cursor)


def _columns(names: Iterable[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else list(names)


def _since(since: Span | datetime | None) -> str | None:
    """A date, also for a length of time: it stays the same however often is reconnected."""
    if since is None:
        return None
    if isinstance(since, datetime):
        if since.utcoffset() is None:
            raise InvalidArgument("since: a time needs a zone, such as datetime.now(UTC).")
        return since.isoformat()
    try:
        seconds = since.total_seconds() if isinstance(since, timedelta) else parse_duration(since)
        return datetime.fromtimestamp(now() - seconds, UTC).isoformat()
    except InvalidParameter as error:
        raise InvalidArgument(f"since: {error.message}") from None
    except (OverflowError, OSError, ValueError):
        raise InvalidArgument("since: that is before the year 1.") from None
