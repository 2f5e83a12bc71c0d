"""The errors of the client are those of the gateway."""

from collections.abc import Iterator

import pytest

from runcast import errors as gateway_errors
from runcast.client import errors
from runcast.client.errors import ApiError, RuncastError, api_error


def codes(kind: type[gateway_errors.GatewayError]) -> Iterator[type[gateway_errors.GatewayError]]:
    if kind.__module__ == gateway_errors.__name__:
        yield kind
        for child in kind.__subclasses__():
            yield from codes(child)


@pytest.mark.parametrize(
    "kind", list(codes(gateway_errors.GatewayError)), ids=lambda kind: kind.code
)
def test_every_code_of_the_gateway_has_its_class(kind: type[gateway_errors.GatewayError]) -> None:
    if kind is gateway_errors.ConfigurationError:
        return  # met at the start of a gateway, never by a client
    error = api_error("no", code=kind.code, status=kind.http_status)
    assert kind.code in errors._BY_CODE
    assert type(error) is not ApiError
    assert (error.code, error.status, str(error)) == (kind.code, kind.http_status, "no")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(418, ApiError), (403, errors.PermissionDenied), (504, errors.Unavailable), (None, ApiError)],
)
def test_a_code_that_is_newer_than_the_client_goes_by_its_status(
    status: int | None, kind: type[ApiError]
) -> None:
    error = api_error("no", code="newer", status=status)
    assert type(error) is kind
    assert error.code == "newer"


def test_all_errors_are_one_tree() -> None:
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and each.__module__ == errors.__name__
    ]
    assert len(kinds) > 20
    assert all(issubclass(kind, RuncastError) for kind in kinds)
