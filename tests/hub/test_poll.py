"""Polls in the hub: what they are answered, and when; tests/web/test_shapes.py has the rest."""

from runcast.core.scope import compile_scopes
from runcast.core.shape import ShapeFormat
from runcast.core.shape_row import Dialect
from runcast.core.subscription import Subscription
from runcast.core.view import View
from runcast.hub.connection import Connection
from runcast.hub.form import AudienceKey
from runcast.hub.poll import Poll
from tests.support.grants import make_grant
from tests.support.outlet import RecordingOutlet
from tests.support.run_hub import EVERYTHING, RunHub


async def test_one_that_has_waited_long_enough_when_a_change_comes_does_not_miss_it() -> None:
    """A regression, found by chaos: it was told to go on from behind the change."""
    world = RunHub()
    hub, before = world.hub, world.hub.position
    form = ShapeFormat(Dialect.of(versioned=True, trigger_version=None), frozenset())
    connection = Connection(
        hub, RecordingOutlet(), kind="poll", form=form, grant=make_grant(["read:runs"])
    )
    machine = Subscription(since=before, limits=world.limits)
    machine.receive_page((), before, None)
    key = AudienceKey(View(EVERYTHING, compile_scopes(["read:runs"])), form, ends_with_run=False)
    poll = Poll(connection, key, machine, waits=True)
    hub.connect(connection)
    connection.add(poll)
    world.clock.advance(2 * world.limits.poll_hold_seconds)
    world.write("run_1")
    assert connection.closed
    assert (poll.messages, poll.position) == ([], before)
