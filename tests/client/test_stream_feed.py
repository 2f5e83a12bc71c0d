"""How far a reader of a stream is, in the words of either transport."""

import pytest

from runcast.client.feed_message import PART, FeedMessage
from runcast.client.stream_feed import From, StreamFeed


@pytest.mark.parametrize(
    ("start", "headers", "fields"),
    [
        ("start", {}, {}),
        ("latest", {"x-trigger-stream-start": "latest"}, {"from": "latest"}),
        (0, {}, {"from": 0}),
        (7, {"last-event-id": "6"}, {"from": 7}),
    ],
)
def test_it_begins_where_it_is_told(
    start: From, headers: dict[str, str], fields: dict[str, object]
) -> None:
    feed = StreamFeed(start)
    assert feed.request_headers() == headers
    assert feed.subscribe_fields() == fields


@pytest.mark.parametrize("start", ["start", "latest", 5])
def test_it_goes_on_behind_the_part_that_came_last_by_its_id(start: From) -> None:
    feed = StreamFeed(start)
    for offset in (5, 6):
        feed.receive(FeedMessage(PART, "x", f"1795370251365-{offset}"))
    assert feed.request_headers() == {"last-event-id": "1795370251365-6"}
    assert feed.subscribe_fields() == {"cursor": "1795370251365-6"}


def test_after_a_reset_it_begins_at_the_start() -> None:
    feed = StreamFeed("latest")
    feed.receive(FeedMessage(PART, "x", "1795370251365-5"))
    feed.receive(FeedMessage("reset", {"reason": "begun_anew", "message": "It is another one."}))
    assert feed.request_headers() == {}
    assert feed.subscribe_fields() == {}
