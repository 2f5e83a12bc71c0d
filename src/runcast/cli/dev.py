"""`runcast dev`: everything at once, for looking and for developing against."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runcast.auth.token import mint_token
from runcast.cli.clock import now
from runcast.cli.configuration import read_settings
from runcast.cli.console import result, say
from runcast.cli.demo import TAG, produce_demo_runs
from runcast.cli.environments import SecretKey, ensure_environment
from runcast.cli.logs import configure_logs
from runcast.cli.loop import ended_by_signals, run
from runcast.cli.migrate import migrate_database
from runcast.errors import ConfigurationError
from runcast.postgres.embedded import default_data_dir, start_embedded
from runcast.settings import Settings

if TYPE_CHECKING:
    from runcast.app import Listening

_SLUG = "dev"
_PAGE_TOKEN_SECONDS = 86400.0
# What nobody works on while developing shall not wait to surprise the next worker.
_TTL_SECONDS = 600

logger = logging.getLogger(__name__)


def dev(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="RUNCAST_HOST")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on; 0 picks a free one.",
            min=0,
            max=65535,
            show_default="RUNCAST_PORT",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the embedded Postgres keeps its data.", file_okay=False),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the embedded data first.")] = False,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Make no demo runs.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help='When ready, print one line {"url", "secretKey", "databaseUrl"} for scripts.',
        ),
    ] = False,
) -> None:
    """
    Start a gateway with an embedded Postgres and demo runs, and print how to look at them.

    DATABASE_URL wins over the embedded server. Data and key stay between starts. Ends on Ctrl-C.
    """
    settings = read_settings(host=host, port=port).without_rates()
    if fresh and settings.database_url:
        raise ConfigurationError(
            "--fresh deletes embedded data, never what DATABASE_URL names: unset that variable."
        )
    configure_logs(settings)
    if "default_ttl_seconds" not in settings.model_fields_set:
        settings = settings.model_copy(update={"default_ttl_seconds": _TTL_SECONDS})
    session = _DevSession(
        settings, data_dir or default_data_dir(), fresh=fresh, demo=not no_demo, as_json=as_json
    )
    run(session.run())


@dataclass
class _DevSession:
    """One `runcast dev` from start to end."""

    settings: Settings
    data_dir: Path
    fresh: bool
    demo: bool
    as_json: bool
    _demo_task: "asyncio.Task[None] | None" = None

    async def run(self) -> None:
        """Bring up database, schema, environment, gateway; end them in the other order."""
        from runcast.app import serve  # no other command needs all of it

        with ended_by_signals() as signals_handed_over:
            async with self._database() as settings:
                await migrate_database(settings)
                environment = await ensure_environment(settings, _SLUG, "Development")

                async def ready(listening: "Listening") -> None:
                    signals_handed_over.set()  # the gateway drains
                    self._announce(listening, environment, settings)
                    if self.demo:
                        self._demo_task = asyncio.create_task(
                            _produce(listening.url, environment.key)
                        )

                try:
                    await serve(settings, on_ready=ready)
                finally:
                    await self._stop_demo()

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[Settings]:
        """Give settings with a database: the one they name, or an embedded one."""
        if self.settings.database_url:
            yield self.settings
            return
        server = await asyncio.to_thread(start_embedded, self.data_dir, fresh=self.fresh)
        try:
            say(f"Postgres {server.version} keeps its data in {server.data_dir}")
            yield self.settings.model_copy(update={"database_url": server.url})
        finally:
            await asyncio.to_thread(server.close)

    def _announce(self, listening: "Listening", environment: SecretKey, settings: Settings) -> None:
        if self.as_json:
            ready = {
                "url": listening.url,
                "secretKey": environment.key,
                "databaseUrl": settings.database_url,
            }
            result(json.dumps(ready))
            return
        moment = now()
        token = mint_token(
            secret=environment.key,
            environment_id=environment.environment_id,
            scopes=["read:runs"],
            expires_at=moment + _PAGE_TOKEN_SECONDS,
            now=moment,
        )
        result(_banner(listening.url, environment.key, token))

    async def _stop_demo(self) -> None:
        if self._demo_task is not None:
            self._demo_task.cancel()
            await asyncio.wait([self._demo_task])


def _banner(url: str, key: str, token: str) -> str:
    feed = f"{url}/realtime/v1/runs?tags={TAG}"
    return "\n".join(
        [
            "",
            "runcast is ready. Open this page to see runs move:",
            "",
            f"  {url}/#token={token}",
            "",
            f"  url         {url}",
            f"  secret key  {key}",
            "",
            "or follow them in a terminal:",
            "",
            f"  curl -N -H 'Authorization: Bearer {key}' '{feed}'",
            f"  RUNCAST_URL={url} RUNCAST_SECRET_KEY={key} runcast tail --tag {TAG}",
            "",
            "Ctrl-C ends it.",
        ]
    )


async def _produce(url: str, key: str) -> None:
    try:
        await produce_demo_runs(url, key)
    except Exception:  # a gateway without a demo is worth more than none
        logger.exception("the demo runs ended")
