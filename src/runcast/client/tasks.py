"""``client.tasks``: triggering runs."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Unpack
from urllib.parse import quote

from runcast.client.errors import InvalidArgument, UnexpectedAnswer
from runcast.client.gateway_http import GatewayHttp
from runcast.client.options import BatchItem, Span, TriggerOptions, span_text, trigger_body
from runcast.client.run import BatchHandle, BatchRunHandle, RunHandle


class Tasks:
    """Triggers tasks: a run comes into being, and with it a token to follow it."""

    def __init__(self, http: GatewayHttp) -> None:
        self._http = http

    async def trigger(
        self, task: str, payload: Any = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle:
        """
        Create a run of a task; see `TriggerOptions`.

        Raises:
            InvalidArgument: A value cannot be sent.
            ApiError: The gateway refused.
            ConnectionLost: It could not be reached. The run may exist nevertheless, unless it was
                given an ``idempotency_key``, with which triggering again is harmless.
        """
        path = f"/api/v1/tasks/{quote(task, safe='')}/trigger"
        told = await self._http.send("POST", path, trigger_body(payload, options))
        try:
            return RunHandle(told["id"], told["publicAccessToken"], bool(told["isCached"]))
        except KeyError as error:
            raise _unreadable(error) from error

    async def batch_trigger(
        self,
        items: Iterable[BatchItem],
        *,
        parent_run_id: str | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Span | None = None,
    ) -> BatchHandle:
        """
        Create many runs in one piece: ``[{"task": "resize", "payload": 1, "tags": ["a"]}, …]``.

        Raises:
            InvalidArgument: A value cannot be sent.
            ApiError: The gateway refused; no run was created.
            ConnectionLost: It could not be reached.
        """
        body: dict[str, Any] = {"items": [_item(item) for item in items]}
        if parent_run_id is not None:
            body["parentRunId"] = parent_run_id
        headers = {}
        if idempotency_key is not None:
            headers["idempotency-key"] = _header("idempotency_key", idempotency_key)
        if isinstance(idempotency_key_ttl, timedelta):
            idempotency_key_ttl = span_text("idempotency_key_ttl", idempotency_key_ttl)
        if idempotency_key_ttl is not None:
            headers["idempotency-key-ttl"] = _header("idempotency_key_ttl", idempotency_key_ttl)
        told = await self._http.send("POST", "/api/v1/tasks/batch", body, headers)
        try:
            runs = tuple(
                BatchRunHandle(run["id"], run["taskIdentifier"], bool(run["isCached"]))
                for run in told["runs"]
            )
            return BatchHandle(told["id"], told["publicAccessToken"], runs, bool(told["isCached"]))
        except (KeyError, TypeError) as error:
            raise _unreadable(error) from error


def _item(item: BatchItem) -> dict[str, Any]:
    options: dict[str, Any] = dict(item)
    try:
        task = options.pop("task")
    except KeyError:
        raise InvalidArgument("Each item of a batch names its task.") from None
    return {"task": task, **trigger_body(options.pop("payload", None), options)}


def _header(name: str, text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise InvalidArgument(f"{name}: a batch takes printable ASCII characters only.")
    return text


def _unreadable(error: Exception) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"The gateway's answer to a trigger lacks something: {error}.")
