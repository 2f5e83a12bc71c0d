"""The container files: every command, port, variable and path in them is real, and no secret is."""

import http.client
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml
from pydantic import AliasChoices

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NGINX = (ROOT / "deploy/nginx.conf").read_text()
MAKE_SECRETS = ROOT / "deploy/make-secrets.sh"

# Variables that the images document, beside those of runcast.settings.
POSTGRES_VARIABLES = {
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD_FILE",
    "POSTGRES_INITDB_ARGS",
}
DRIVER_VARIABLES = {"PGPASSFILE"}  # asyncpg reads it as libpq does


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest) pairs."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    return [(word.upper(), rest.strip()) for word, rest in pairs]


def last(instruction: str) -> str:
    return [rest for word, rest in dockerfile() if word == instruction][-1]


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in SERVICES.items() if "build" in service}


def gateways() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in ours().items() if service["command"][0] == "serve"}


def one_shots() -> set[str]:
    return {name for name, service in SERVICES.items() if service["restart"] == "no"}


def parse_with_the_command_line(words: list[str]) -> dict[str, Any]:
    """Let the real `runcast` parse these words, without running the command."""
    import runcast.cli

    group = typer.main.get_group(runcast.cli.app)
    command = group.commands[words[0]]
    return command.make_context(words[0], words[1:]).params


def variables_of_the_settings() -> set[str]:
    """Environment variables that runcast.settings reads."""
    from runcast.settings import Settings

    prefix = str(Settings.model_config["env_prefix"])
    names: set[str] = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names.update(
            map(str, alias.choices) if isinstance(alias, AliasChoices) else [prefix + name]
        )
    return {name.upper() for name in names}


# Commands


def test_every_command_of_ours_is_one_of_the_command_line() -> None:
    assert {service["command"][0] for service in ours().values()} == {"serve", "migrate"}
    for service in ours().values():
        parse_with_the_command_line(service["command"])


def test_the_image_serves_on_the_port_that_it_exposes() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["runcast"]
    parameters = parse_with_the_command_line(json.loads(last("CMD")))
    assert (parameters["host"], str(parameters["port"])) == ("0.0.0.0", last("EXPOSE"))


def test_the_entry_point_is_what_the_package_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "runcast" in project["scripts"]
    assert project["requires-python"] == ">=3.11"
    bases = [rest.split()[0] for word, rest in dockerfile() if word == "FROM"]
    assert bases == ["node:22-slim", "python:3.11-slim", "python:3.11-slim"]


def test_the_image_does_not_run_as_root() -> None:
    assert int(last("USER")) > 0


# Ports and addresses


def test_the_gateways_listen_where_they_say() -> None:
    assert len(gateways()) == 3
    for service in gateways().values():
        parameters = parse_with_the_command_line(service["command"])
        assert service["expose"] == [str(parameters["port"])] == [last("EXPOSE")]


def test_the_proxy_knows_every_gateway_and_listens_where_it_is_published() -> None:
    servers = re.findall(r"^\s*server (\S+?):(\d+)\b", NGINX, re.MULTILINE)
    assert servers == [(name, last("EXPOSE")) for name in gateways()]
    assert set(SERVICES["proxy"]["depends_on"]) == set(gateways())
    [published] = SERVICES["proxy"]["ports"]
    assert published.rpartition(":")[2] == directive("listen")


def test_urls_lead_to_services_and_carry_no_password() -> None:
    postgres = SERVICES["postgres"]["environment"]
    for service in ours().values():
        database = urlsplit(service["environment"]["DATABASE_URL"])
        assert (database.hostname, database.port, database.password) == ("postgres", 5432, None)
        assert database.username == postgres["POSTGRES_USER"]
        assert database.path == f"/{postgres['POSTGRES_DB']}"
        redis = urlsplit(service["environment"]["REDIS_URL"])
        assert (redis.hostname, redis.port, redis.password) == ("redis", 6379, None)


# Variables


def test_every_variable_is_read_by_someone() -> None:
    for name, service in ours().items():
        unknown = set(service["environment"]) - variables_of_the_settings() - DRIVER_VARIABLES
        assert not unknown, name
    assert set(SERVICES["postgres"]["environment"]) == POSTGRES_VARIABLES
    others = set(SERVICES) - set(ours()) - {"postgres"}
    assert [name for name in others if "environment" in SERVICES[name]] == []


# Health and order


def test_every_service_has_a_health_check_or_ends_by_itself() -> None:
    assert last("HEALTHCHECK")
    unwatched = {
        name
        for name, service in SERVICES.items()
        if "healthcheck" not in service and name not in gateways() and name not in one_shots()
    }
    assert unwatched == set()
    assert one_shots() == {"secrets", "migrate"}


def test_services_wait_for_health_and_for_the_end_of_one_shots() -> None:
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            awaited = "completed_successfully" if name in one_shots() else "healthy"
            assert condition == {"condition": f"service_{awaited}"}, name
            assert name in SERVICES


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_of_the_image_tells_health_from_illness(
    status: int, healthy: bool
) -> None:
    command = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    assert f"'127.0.0.1', {last('EXPOSE')}" in command[2]
    with answering("/healthz", status) as port:
        code = command[2].replace(last("EXPOSE"), str(port))
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert (done.returncode == 0) is healthy, done.stderr


@contextmanager
def answering(path: str, status: int) -> Iterator[int]:
    """Answer GET of this path with this status, and everything else with 404; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else http.client.NOT_FOUND)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_health_is_asked_where_the_gateway_answers() -> None:
    from runcast.web.routes import OPERATIONS

    assert ("GET", "/healthz") in {(operation.method, operation.path) for operation in OPERATIONS}
    check = SERVICES["proxy"]["healthcheck"]["test"][-1]
    assert check == f"http://127.0.0.1:{directive('listen')}/healthz"


# Files and volumes


def test_every_path_that_is_copied_exists_and_is_let_through() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    copied = [rest.split() for word, rest in dockerfile() if word == "COPY"]
    sources = [path for *paths, _ in copied if not paths[0].startswith("--") for path in paths]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore, source


def test_every_mounted_file_exists_and_every_volume_is_declared() -> None:
    named = set()
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                named.add(source)
    assert named == set(COMPOSE["volumes"])


def test_state_lives_in_volumes() -> None:
    assert "postgres:/var/lib/postgresql" in SERVICES["postgres"]["volumes"]
    assert "redis:/data" in SERVICES["redis"]["volumes"]


# Secrets


def make_secrets(directory: Path) -> None:
    environment = {**os.environ, "RUNCAST_UID": str(os.getuid())}
    subprocess.run(["/bin/sh", MAKE_SECRETS, directory], check=True, env=environment)


posix = pytest.mark.skipif(sys.platform == "win32", reason="make-secrets.sh runs in a container")


@posix
def test_the_password_is_random_private_and_kept(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        make_secrets(directory)
    password = (first / "postgres-password").read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert password != (second / "postgres-password").read_text()

    make_secrets(first)
    assert (first / "postgres-password").read_text() == password
    assert (first / "pgpass").read_text() == f"postgres:5432:runcast:runcast:{password}\n"
    for name in ("postgres-password", "pgpass"):
        assert stat.S_IMODE((first / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in first.iterdir()) == ["pgpass", "postgres-password"]


@posix
def test_secrets_are_read_where_they_are_written(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    written = SERVICES["secrets"]["entrypoint"][-1]
    readers = [SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"]]
    readers += [service["environment"]["PGPASSFILE"] for service in ours().values()]
    for reader in map(PurePosixPath, readers):
        assert str(reader.parent) == written
        assert (tmp_path / reader.name).exists()
    for name in ("postgres", *ours()):
        assert f"secrets:{written}:ro" in SERVICES[name]["volumes"]
    assert f"secrets:{written}" in SERVICES["secrets"]["volumes"]


def test_the_password_file_belongs_to_the_user_of_the_image() -> None:
    user = last("USER")
    assert f"--uid {user} " in " ".join(rest for word, rest in dockerfile() if word == "RUN")
    assert f"RUNCAST_UID:-{user}}}" in MAKE_SECRETS.read_text()


@pytest.mark.parametrize(
    "file", ["docker-compose.yml", "Dockerfile", "deploy/nginx.conf", "deploy/make-secrets.sh"]
)
def test_no_secret_is_written_in_a_file(file: str) -> None:
    text = (ROOT / file).read_text()
    assert not re.search(r"://[^/\s:@]*:[^/\s@]+@", text)
    assert not re.search(r"tr_(dev|prod|stg)_\w", text)
    assert not re.search(r"(?im)^\s*\w*(PASSWORD|SECRET|TOKEN|_KEY)\s*[:=]\s*\S", text)


# The proxy


def directive(name: str) -> str:
    """The value of a directive that stands once in nginx.conf."""
    [value] = re.findall(rf"^\s*{name}\s+([^;]+);", NGINX, re.MULTILINE)
    return str(value)


def test_the_proxy_holds_nothing_back_and_is_patient() -> None:
    for name in ("proxy_buffering", "proxy_request_buffering", "proxy_cache"):
        assert directive(name) == "off"
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        assert directive(name) == "1h"


def test_the_proxy_lets_websockets_through() -> None:
    assert directive("proxy_http_version") == "1.1"
    assert directive("proxy_set_header Upgrade") == "$http_upgrade"
    assert directive("proxy_set_header Connection") == "$connection_header"


def test_the_proxy_never_logs_a_query() -> None:
    [log_format] = re.findall(r"log_format without_query ([^;]+);", NGINX)
    logged = set(re.findall(r"\$\{?(\w+)", log_format))
    assert directive("access_log").split()[-1] == "without_query"
    assert not logged & {"request", "request_uri", "args", "query_string", "http_referer"}
    assert directive("error_log").split()[-1] == "crit"


# The tools' own opinion


def test_docker_compose_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("MISSING docker with the compose plugin: the file was not checked by it")
    command = [docker, "compose", "--file", str(COMPOSE_FILE), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
