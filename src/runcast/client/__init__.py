"""
The client: what programs import to trigger, follow, produce and stream runs.

Knows the protocol and values of core, and nothing of the server.
"""

from runcast.client.aio import AsyncClient as AsyncClient
from runcast.client.convenience import create_public_token as create_public_token
from runcast.client.errors import RuncastError as RuncastError
from runcast.client.events import (
    End as End,
    Reset as Reset,
    RunChanged as RunChanged,
    RunEvent as RunEvent,
    RunGone as RunGone,
    UpToDate as UpToDate,
)
from runcast.client.listing import Listing as Listing, Page as Page
from runcast.client.options import (
    BatchItem as BatchItem,
    RunChanges as RunChanges,
    RunFilters as RunFilters,
    TriggerOptions as TriggerOptions,
)
from runcast.client.revocation import Revocation as Revocation
from runcast.client.run import (
    Batch as Batch,
    BatchHandle as BatchHandle,
    BatchRunHandle as BatchRunHandle,
    Run as Run,
    RunFailure as RunFailure,
    RunHandle as RunHandle,
)
from runcast.client.run_metadata import RunMetadata as RunMetadata
from runcast.client.run_writer import RunWriter as RunWriter
from runcast.client.stream_feed import Part as Part, StreamEvent as StreamEvent
from runcast.client.stream_reading import StreamReading as StreamReading
from runcast.client.stream_writer import StreamWriter as StreamWriter
from runcast.client.subscription import Subscription as Subscription
from runcast.client.sync import Client as Client
