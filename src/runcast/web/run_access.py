"""Which run a request is about, and whether its caller may read it."""

from runcast.auth.grant import Grant
from runcast.core.run import Run
from runcast.core.scope import Resource
from runcast.errors import NotFound
from runcast.web.bearer import require, require_read
from runcast.web.services import Services

NO_RUN = "There is no run with this id in this environment."


async def readable_run(services: Services, grant: Grant, run_id: str) -> Run:
    """
    Give the run, if the grant may read it.

    Raises:
        NotFound: There is none, and the grant would have allowed to read it by its id.
        InsufficientScope: Otherwise; whoever may not read a run does not learn whether it exists.
    """
    run = await services.hub.read_run(grant.environment_id, run_id)
    if run is None:
        require(grant, "read", Resource("runs", run_id))
        raise NotFound(NO_RUN)
    require_read(grant, run)
    return run
