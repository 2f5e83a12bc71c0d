"""What one open WebSocket was asked for: its commands, and the subscriptions they make."""

import orjson

from runcast.auth.grant import Grant
from runcast.core.chunk import StreamName
from runcast.core.command import (
    Authenticate,
    InvalidCommand,
    Ping,
    StreamAsked,
    Subscribe,
    Unsubscribe,
    parse_command,
)
from runcast.core.frame import End, Problem
from runcast.core.position import Position, parse_cursor
from runcast.core.selector import Selector
from runcast.core.socket_format import SocketFormat
from runcast.core.stream_format import StreamSocketFormat
from runcast.core.subscription import Subscription
from runcast.core.view import View
from runcast.errors import (
    GatewayError,
    InsufficientScope,
    NotFound,
    RequestError,
    TooManySubscriptions,
)
from runcast.hub.connection import Connection
from runcast.hub.form import AudienceKey
from runcast.hub.outlet import Outlet
from runcast.hub.stream_reader import StreamReader
from runcast.hub.subscriber import Subscriber
from runcast.web.feeds import (
    created_after,
    finished_before,
    require_feed,
    skipped_columns,
)
from runcast.web.renewal import begin_renewal, end_renewal
from runcast.web.run_access import readable_run
from runcast.web.services import Services
from runcast.web.stream_reading import run_key, subscription_from

_MAX_PROBLEMS = 100  # messages in a row that could not be understood, before the socket is closed


class _ConnectionFormat(SocketFormat):
    """Messages that belong to the connection, not to one of its subscriptions."""

    def _head(self, name: str, cursor: str | None) -> dict[str, object]:
        return {"type": name}


CONNECTION_FORMAT: SocketFormat = _ConnectionFormat("", frozenset())


class SocketCommands:
    """Carries out the commands of an authenticated client, in order, on its connection."""

    __slots__ = ("_outlet", "_problems", "_services", "connection")

    def __init__(self, services: Services, grant: Grant, outlet: Outlet) -> None:
        self._services = services
        self._outlet = outlet
        self._problems = 0
        self.connection = Connection(
            services.hub,
            outlet,
            kind="websocket",
            form=CONNECTION_FORMAT,
            grant=grant,
        )

    def begin(self) -> None:
        """Let the hub look after the connection, and tell the client that it is in."""
        self._services.hub.connect(self.connection)
        self._say_authenticated()

    async def handle(self, message: str | bytes) -> None:
        """Carry out one message, once the client has read what it was sent."""
        try:
            await self.connection.writable()  # who does not read is not listened to either
            if self.connection.closed:
                return
            await self._command(message)
            self._problems = 0
        except InvalidCommand as error:
            self._say_problem(error, error.subscription_id)
            self._problems += 1
            if self._problems >= _MAX_PROBLEMS:
                self.connection.fail(RequestError("Too many messages made no sense."))

    async def _command(self, text: str | bytes) -> None:
        match parse_command(text):
            case Ping():
                self._send(b'{"type":"pong"}\n')
            case Authenticate(token):
                await self._renew(token)
            case Subscribe() as command:
                try:
                    await self._subscribe(command)
                except GatewayError as error:
                    self._say_problem(error, command.id)
            case Unsubscribe(name):
                subscriber = self.connection.subscribers.get(name)
                if subscriber is None:
                    self._say_problem(NotFound("There is no subscription of this id."), name)
                else:
                    subscriber.close(End("unsubscribed"))

    async def _subscribe(self, command: Subscribe) -> None:
        services, grant, asked = self._services, self.connection.grant, command.asked
        subscribers = self.connection.subscribers
        if command.id in subscribers:
            raise RequestError("This id is taken: unsubscribe it first, or choose another one.")
        if len(subscribers) >= services.limits.max_subscriptions_per_connection:
            raise TooManySubscriptions(
                "This connection holds as many subscriptions as it may; end one, or open another."
            )
        if isinstance(asked, StreamAsked):
            await self._read_stream(command, asked)
            return
        since = parse_cursor(command.cursor) if command.cursor else None
        form = SocketFormat(command.id, skipped_columns(services, grant, command.skip_columns))
        selector = Selector(
            grant.environment_id,
            run_id=asked.run,
            tags=asked.tags,
            task=asked.task,
            batch_id=asked.batch,
            created_after=created_after(asked.created_at, services.clock.now()),
        )
        ends, known_finished = False, False
        if asked.run is not None:
            run = await readable_run(services, grant, asked.run)
            ends = not command.stay
            known_finished = ends and await finished_before(services, run, since)
        else:
            require_feed(grant, selector)
            if asked.batch is not None and (
                await services.runs.read_batch(grant.environment_id, asked.batch) is None
            ):
                raise NotFound("There is no such batch in this environment.")
        if self.connection.closed:
            return
        self._add(
            command.id,
            selector,
            form,
            since,
            ends,
            known_finished=known_finished,
            asked_to_skip=frozenset(filter(None, command.skip_columns.split(","))),
        )

    async def _read_stream(self, command: Subscribe, asked: StreamAsked) -> None:
        name = StreamName(asked.run, asked.key)
        grant = self.connection.grant
        run = await readable_run(self._services, grant, asked.run)
        if self.connection.closed:
            return
        hub = self._services.hub
        machine = subscription_from(command.cursor, asked.begin)
        machine.run_over = run.finished
        self.connection.add(
            StreamReader(
                self.connection,
                command.id,
                hub.tail_of(name),
                machine,
                StreamSocketFormat(command.id),
                run_key(grant, run.id),
            )
        )

    def _add(
        self,
        name: str,
        selector: Selector,
        form: SocketFormat,
        since: Position | None,
        ends_with_run: bool,
        *,
        known_finished: bool = False,
        asked_to_skip: frozenset[str] = frozenset(),
    ) -> None:
        machine = Subscription(
            since=since,
            ends_with_run=ends_with_run,
            limits=self._services.limits,
        )
        key = AudienceKey(View(selector, self.connection.grant.permissions), form, ends_with_run)
        self.connection.add(
            Subscriber(
                self.connection,
                name,
                key,
                machine,
                known_finished=known_finished,
                asked_to_skip=asked_to_skip,
            )
        )

    # -- the token --------------------------------------------------------------------------------

    async def _renew(self, token: str) -> None:
        try:
            grant = await self._services.bearer.grant_for(token)
            began = begin_renewal(self._services, self.connection, grant)
        except GatewayError as error:
            self._say_problem(error)  # the old grant goes on until its end
            return
        self._say_authenticated()
        await end_renewal(self._services, self.connection, began)

    # -- messages ---------------------------------------------------------------------------------

    def _send(self, line: bytes) -> None:
        self._outlet.write(line)

    def _say_authenticated(self) -> None:
        message: dict[str, object] = {"type": "authenticated"}
        expires_at = self.connection.grant.expires_at
        if expires_at is not None:
            message["expiresAt"] = int(expires_at)
        self._send(orjson.dumps(message) + b"\n")

    def _say_problem(self, error: GatewayError, subscription_id: str | None = None) -> None:
        if isinstance(error, InsufficientScope):
            self._services.bearer.rejections[error.code] += 1
        form = CONNECTION_FORMAT
        if subscription_id is not None:
            form = SocketFormat(subscription_id, frozenset())
        self._send(form.encode(Problem(error.code, error.message), None))
