"""
Batches whose items arrive apart from them, and become runs once all are there.

    PENDING ──(all items are there)──► PROCESSING ──(all are runs)──► no longer due
       └──(24 hours)──► ABORTED

A sealed batch is worked off in pieces, each a transaction that turns items into runs. Whoever
begins has it for a while (`due_at`); a gateway that dies leaves the rest to the scheduler of
another one.
"""

from collections.abc import Sequence

from runcast.core.batch import Batch, NewBatch, StreamedItems, failed_item
from runcast.core.new_run import NewRun
from runcast.core.object_name import check_object_name
from runcast.core.packet import in_object_store
from runcast.errors import InvalidParameter, RequestError
from runcast.postgres.database import Database, Row, Transaction
from runcast.postgres.run_writer import fill_batch, insert_batch, read_batch_within

_PIECE_ITEMS = 50
_PIECE_BYTES = 8 * 1024 * 1024
_LEASE_SECONDS = 5.0  # for which a gateway has a batch to itself

# Locked against sealing, so that no item comes after that.
_LOCK_OPEN = """
    SELECT status FROM @schema@.batches WHERE environment_id = $1 AND id = $2 AND due_at IS NOT NULL
    FOR SHARE"""

_ADD = """
    INSERT INTO @schema@.batch_items (batch_id, environment_id, index, run, object)
    SELECT $1, $2, * FROM unnest($3::integer[], $4::text[], $5::text[])
    ON CONFLICT DO NOTHING RETURNING index"""

_SEAL = """
    UPDATE @schema@.batches SET status = 'PROCESSING', updated_at = now(),
        due_at = now() + make_interval(secs => $3)
    WHERE environment_id = $1 AND id = $2 AND status = 'PENDING' AND due_at IS NOT NULL
        AND run_count = (SELECT count(*) FROM @schema@.batch_items WHERE batch_id = $2)"""

_HOW_FAR = """
    SELECT status, run_count, due_at,
        (SELECT count(*) FROM @schema@.batch_items WHERE batch_id = $2) AS stored
    FROM @schema@.batches WHERE environment_id = $1 AND id = $2"""

_LOCK_SEALED = """
    SELECT id FROM @schema@.batches
    WHERE id = $1 AND status = 'PROCESSING' AND due_at IS NOT NULL
    FOR NO KEY UPDATE SKIP LOCKED"""

_NEXT_ITEMS = f"""
    SELECT index, run FROM (
        SELECT index, run, sum(octet_length(run)) OVER (ORDER BY index) AS bytes,
            row_number() OVER (ORDER BY index) AS place
        FROM (
            SELECT index, run FROM @schema@.batch_items WHERE batch_id = $1
            ORDER BY index LIMIT {_PIECE_ITEMS}
        ) AS next
    ) AS measured WHERE place = 1 OR bytes <= {_PIECE_BYTES} ORDER BY index"""

_DROP_ITEMS = """
    DELETE FROM @schema@.batch_items WHERE batch_id = $1 AND index = ANY($2::integer[])"""

_GO_ON = """
    UPDATE @schema@.batches SET updated_at = now(),
        due_at = CASE WHEN EXISTS (SELECT FROM @schema@.batch_items WHERE batch_id = $1)
            THEN now() + make_interval(secs => $2) END
    WHERE id = $1 RETURNING due_at IS NOT NULL AS more"""


class _TakenByOthers(Exception):
    """Another gateway is at work on the batch, or nothing is left to do."""


class StreamedBatches:
    """Collects the items of batches, and turns them into runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_batch(self, new_batch: NewBatch, run_count: int) -> Batch:
        """
        Create a batch that is PENDING until it was streamed this many items.

        Raises:
            OneTimeTokenSpent: The token was used before; nothing was created.
        """

        async def work() -> Batch:
            async with self._database.transaction() as transaction:
                batch_id, found = await insert_batch(
                    transaction, new_batch, run_count=run_count, streamed=True
                )
                return found or await read_batch_within(
                    transaction, new_batch.environment_id, batch_id
                )

        return await self._database.retrying(work)

    async def add_items(
        self, environment_id: str, batch_id: str, items: Sequence[NewRun]
    ) -> int | None:
        """
        Keep items of a batch, once for each ``batch_index``, and tell how many were new.

        None: the batch takes no items any more.
        """
        # In one order, so that those who send the same items wait for each other in a line.
        ordered = sorted(items, key=lambda item: item.batch_index or 0)
        indexes = [item.batch_index for item in ordered]
        texts = [item.to_json() for item in ordered]
        objects = [_object_of(item) for item in ordered]

        async def work() -> int | None:
            async with self._database.transaction() as transaction:
                rows = await transaction.fetch(_LOCK_OPEN, environment_id, batch_id)
                if not rows or rows[0]["status"] != "PENDING":
                    return None
                added = await transaction.fetch(
                    _ADD, batch_id, environment_id, indexes, texts, objects
                )
                return len(added)

        return await self._database.retrying(work)

    async def seal_batch(self, environment_id: str, batch_id: str) -> StreamedItems:
        """Seal a batch that has all its items, and tell how far it is."""
        await self._database.fetch(_SEAL, environment_id, batch_id, _LEASE_SECONDS)
        rows = await self._database.fetch(_HOW_FAR, environment_id, batch_id)
        if not rows or rows[0]["status"] == "ABORTED":
            return StreamedItems(missing=True)
        row = rows[0]
        sealed = row["status"] != "PENDING"
        # One that waits for nothing was not made to be streamed.
        missing = not sealed and row["due_at"] is None
        return StreamedItems(row["run_count"], row["stored"], sealed, missing)

    async def create_next_runs(self, batch_id: str) -> bool:
        """
        Turn the next few items of a sealed batch into runs, and tell whether there are more.

        A batch that another gateway is at work on is left to it.
        """
        try:
            try:
                return await self._database.retrying(lambda: self._create_piece(batch_id))
            except RequestError:
                # Something about one of them: it will fail alone, as a run.
                return await self._database.retrying(lambda: self._create_one(batch_id))
        except _TakenByOthers:
            return False

    async def _create_piece(self, batch_id: str) -> bool:
        async with self._database.transaction() as transaction:
            rows = await _next_items(transaction, batch_id)
            await fill_batch(transaction, batch_id, [NewRun.from_json(row["run"]) for row in rows])
            return await _go_on(transaction, batch_id, rows)

    async def _create_one(self, batch_id: str) -> bool:
        """Turn one item into a run, or into one that says why it could not be."""
        try:
            async with self._database.transaction() as transaction:
                rows = (await _next_items(transaction, batch_id))[:1]
                items = [NewRun.from_json(row["run"]) for row in rows]
                await fill_batch(transaction, batch_id, items)
                return await _go_on(transaction, batch_id, rows)
        except RequestError as error:
            reason = error.message
        async with self._database.transaction() as transaction:
            rows = (await _next_items(transaction, batch_id))[:1]
            items = [failed_item(NewRun.from_json(row["run"]), reason) for row in rows]
            await fill_batch(transaction, batch_id, items)
            return await _go_on(transaction, batch_id, rows)


def _object_of(item: NewRun) -> str | None:
    """The name of the object that holds the payload, if that is one and can be."""
    if item.payload is None or not in_object_store(item.payload_type):
        return None
    try:
        return check_object_name(item.payload)
    except InvalidParameter:
        return None


async def _next_items(transaction: Transaction, batch_id: str) -> list[Row]:
    """
    The next few items, with their batch locked.

    Raises:
        _TakenByOthers: Another gateway is at work on it, or nothing is left to do.
    """
    if not await transaction.fetch(_LOCK_SEALED, batch_id):
        raise _TakenByOthers
    return await transaction.fetch(_NEXT_ITEMS, batch_id)


async def _go_on(transaction: Transaction, batch_id: str, done: Sequence[Row]) -> bool:
    await transaction.fetch(_DROP_ITEMS, batch_id, [row["index"] for row in done])
    rows = await transaction.fetch(_GO_ON, batch_id, _LEASE_SECONDS)
    return bool(rows[0]["more"])
