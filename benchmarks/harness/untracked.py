"""The table of runs as it would be without tracking: what the cost of tracking is measured from."""

from benchmarks.harness.store import Store

_CREATE = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.runs (LIKE runcast.runs INCLUDING DEFAULTS INCLUDING IDENTITY
    INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING STORAGE);
INSERT INTO {schema}.runs OVERRIDING SYSTEM VALUE SELECT * FROM runcast.runs;
"""
_NOTIFY = """
CREATE FUNCTION {schema}.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{schema}', NEW.id || ' ' || (NEW.metadata ->> 'at'));
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER UPDATE ON {schema}.runs FOR EACH ROW EXECUTE FUNCTION {schema}.tell();
"""


async def copy_runs(store: Store, schema: str, *, notify: bool) -> None:
    """
    Copy the runs to a schema, with their indexes and without their triggers.

    Args:
        notify: Tell of each change by NOTIFY on the channel of the schema's name, id and stamp in
            its payload: the usual way to follow a table.
    """
    await store.connection.execute(_CREATE.format(schema=schema), timeout=600)
    if notify:
        await store.connection.execute(_NOTIFY.format(schema=schema))
    await store.connection.execute(f"VACUUM ANALYZE {schema}.runs", timeout=600)
