"""All that faces Postgres: stores, tailer, migrations and the embedded server."""
