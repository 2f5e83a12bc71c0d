"""What can go wrong with an embedded server, as errors whose messages name the fix."""

from runcast.errors import BackendError


class EmbeddedPostgresError(BackendError):
    """The embedded server cannot be started or reached."""

    code = "embedded_postgres_failed"


class EmbeddedPostgresInUse(EmbeddedPostgresError):
    """The directory's server is used by another process in a way that excludes this request."""

    code = "embedded_postgres_in_use"
