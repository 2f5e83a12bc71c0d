"""Lists of runs, page by page or all at once."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from runcast.client.errors import InvalidArgument, UnexpectedAnswer
from runcast.client.gateway_http import GatewayHttp
from runcast.client.run import Run, run_from


@dataclass(frozen=True, slots=True)
class Page:
    """Runs, newest first, and the cursors of the pages beside them; None: there is none."""

    runs: tuple[Run, ...]
    next: str | None = None
    previous: str | None = None


class Listing:
    """
    Runs that pass some filters, newest first: ``async for run in listing`` goes over all pages.

    Lists tell neither payload, output nor error. Runs created while it goes are not among them.
    """

    def __init__(
        self, http: GatewayHttp, filters: Sequence[tuple[str, str]], page_size: int
    ) -> None:
        if not 1 <= page_size <= 100:
            raise InvalidArgument("A page has 1 to 100 runs.")
        self._http = http
        self._filters = [*filters, ("page[size]", str(page_size))]

    async def page(self, *, after: str | None = None, before: str | None = None) -> Page:
        """
        Give one page: the first, the one after ``Page.next``, or the one before ``Page.previous``.

        Raises:
            ApiError: The gateway refused.
            ConnectionLost: It could not be reached.
        """
        params = list(self._filters)
        if after is not None:
            params.append(("page[after]", after))
        if before is not None:
            params.append(("page[before]", before))
        told = await self._http.get("/api/v1/runs", params)
        try:
            pagination = told["pagination"]
            runs = tuple(run_from(run) for run in told["data"])
            return Page(runs, pagination.get("next"), pagination.get("previous"))
        except (KeyError, TypeError, AttributeError) as error:
            raise UnexpectedAnswer("The gateway sent a list that cannot be read.") from error

    async def pages(self) -> AsyncGenerator[Page, None]:
        """All pages; errors as in `page`."""
        page = await self.page()
        yield page
        while page.next is not None:
            page = await self.page(after=page.next)
            yield page

    def __aiter__(self) -> AsyncIterator[Run]:
        return self._runs()

    async def _runs(self) -> AsyncGenerator[Run, None]:
        async for page in self.pages():
            for run in page.runs:
                yield run
