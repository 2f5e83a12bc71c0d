"""What is there: the runs of the environment, by a SELECT or, without a database, by the list."""

from collections.abc import Awaitable, Callable

import httpx

from chaos.sight import Sight, sight_of_object

Truth = Callable[[], Awaitable[dict[str, Sight]]]

_NEWEST = {"x-trigger-api-version": "2025-07-16"}  # older clients are told fewer statuses


def listed_runs(http: httpx.AsyncClient) -> Truth:
    """Read all pages of the list of runs."""

    async def read() -> dict[str, Sight]:
        runs: dict[str, Sight] = {}
        after: str | None = None
        while True:
            query = {"page[size]": "100"} | ({"page[after]": after} if after else {})
            answer = await http.get("/api/v1/runs", params=query, headers=_NEWEST)
            answer.raise_for_status()
            page = answer.json()
            for run in page["data"]:
                runs[run["id"]] = sight_of_object(run)
            after = page["pagination"].get("next")
            if after is None:
                return runs

    return read
