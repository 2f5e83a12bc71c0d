"""Bringing one subscriber up to date from the store."""

import asyncio
import logging
import random

from runcast.core.frame import End
from runcast.core.page import ChangePage
from runcast.core.subscription import Read
from runcast.core.view import View
from runcast.errors import BackendError, PositionLost
from runcast.hub.log_context import request_id
from runcast.hub.seams import CatchingUp
from runcast.hub.shared_reads import SharedReads

logger = logging.getLogger(__name__)

_FIRST_PAGE_RUNS = 20  # the first page comes quickly, and large rows show before many are asked for
_LONGEST_RETRY_SECONDS = 5.0


async def catch_up(subscriber: CatchingUp, runs: SharedReads) -> None:
    """
    Read what the subscriber's machine asks for until it is live, at the pace of its reader.

    While the store does not answer this tries again, so that subscribers notice only a delay.
    """
    connection = subscriber.connection
    request_id.set(connection.request_id)
    longest_page = connection.hub.limits.snapshot_page_runs
    limit = min(_FIRST_PAGE_RUNS, longest_page) if subscriber.shows_pages else longest_page
    retry_after = 0.1
    while not connection.closed and (read := subscriber.machine.next_read()) is not None:
        await connection.writable()
        try:
            page = await _read_page(runs, subscriber.key.view, read, limit)
        except PositionLost as lost:
            connection.hub.counts.resets[lost.reason] += 1
            subscriber.receive_lost(lost.reason, lost.message)
            continue
        except BackendError as error:
            logger.warning("a page of runs could not be read, trying again: %s", error.message)
            await asyncio.sleep(random.uniform(0.5, 1.0) * retry_after)
            retry_after = min(retry_after * 2, _LONGEST_RETRY_SECONDS)
            continue
        limit = min(limit * 4, longest_page)
        retry_after = 0.1
        if subscriber.machine.next_read() == read:  # unless it was closed or restarted meanwhile
            frames = page.seen_through(subscriber.key.view)
            subscriber.machine.receive_page(frames, page.position, page.next)
            if subscriber.known_finished and not frames:
                subscriber.machine.receive_finished()
            if subscriber.machine.ends_with_run and read.since is None and not page.changes:
                subscriber.machine.close(End("deleted"))  # since somebody asked for it
        subscriber.flush()


async def _read_page(runs: SharedReads, view: View, read: Read, limit: int) -> ChangePage:
    if read.since is None:
        return await runs.read_snapshot(view.selector, after=read.after, limit=limit)
    return await runs.read_changes(view.selector, since=read.since, after=read.after, limit=limit)
