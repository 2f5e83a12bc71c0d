"""Making a database ours after it was created, copied, or restored from a dump."""

import asyncpg


async def adopt(connection: "asyncpg.Connection[asyncpg.Record]", *, schema: str) -> bool:
    """
    Remember which database this is; returns whether it was another one before.

    A restored dump brings transaction numbers of the server that it was made on. Where they lie
    ahead of this server's, its followers would find those rows new for ever, so they are
    renumbered; positions of the old database are refused by its name (`database_name`).
    """
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {schema}.following IN SHARE ROW EXCLUSIVE MODE")
        row = await connection.fetchrow(
            f"""SELECT system_identifier AS here, oid AS oid_here,
                (SELECT (system_identifier, database_oid) FROM {schema}.following) AS known
            FROM pg_control_system(), pg_database WHERE datname = current_database()"""
        )
        assert row is not None
        here = (row["here"], row["oid_here"])
        if row["known"] is not None and tuple(row["known"]) == here:
            return False
        await connection.execute(
            f"""INSERT INTO {schema}.following (system_identifier, database_oid) VALUES ($1, $2)
            ON CONFLICT (singleton) DO UPDATE SET
                system_identifier = EXCLUDED.system_identifier,
                database_oid = EXCLUDED.database_oid, horizon = '0'""",
            *here,
        )
        await connection.execute(f"DELETE FROM {schema}.departures")
        await connection.execute(
            f"""UPDATE {schema}.runs SET ttl = ttl WHERE id IN (
                SELECT run_id FROM {schema}.run_changes
                WHERE changed_in >= pg_snapshot_xmax(pg_current_snapshot())
            )"""
        )
        await connection.execute(
            f"""UPDATE {schema}.streams SET changed_in = pg_current_xact_id()
            WHERE changed_in >= pg_snapshot_xmax(pg_current_snapshot())"""
        )
        return True
