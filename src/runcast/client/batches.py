"""``client.batches``: how the runs of a batch fare together."""

from urllib.parse import quote

from runcast.client.gateway_http import GatewayHttp
from runcast.client.run import Batch, batch_from


class Batches:
    """Looks at batches; `Tasks.batch_trigger` creates them."""

    def __init__(self, http: GatewayHttp) -> None:
        self._http = http

    async def retrieve(self, batch_id: str) -> Batch:
        """
        Give a batch as it is now.

        Raises:
            ApiError: The gateway refused; `NotFound`: there is no such batch.
            ConnectionLost: It could not be reached.
        """
        return batch_from(await self._http.get(f"/api/v2/batches/{quote(batch_id, safe='')}"))
