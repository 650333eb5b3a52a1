"""The jobs of the service, for the routes that need them."""

from typing import Annotated

from fastapi import Depends

from service.api.context import Context, ContextDep
from service.api.job_answers import JobView
from service.api.principal import Principal
from service.errors import JobsOffError
from service.jobs.queue import Jobs
from service.search.views import PathNames


async def _get_jobs(context: ContextDep) -> Jobs:
    """The jobs.

    Raises:
        JobsOffError: the settings do not let clients start any.
    """
    if context.jobs is None:
        raise JobsOffError(
            "This service does not let clients start jobs. Start it with `reelfind serve --jobs`, or set "
            "REELFIND_JOBS=1."
        )
    return context.jobs


JobsDep = Annotated[Jobs, Depends(_get_jobs)]


def view_of(context: Context, principal: Principal) -> JobView:
    """What of jobs somebody sees."""
    names = PathNames(principal.view, context.media_folders.current())
    return JobView(principal.view.folder, principal.is_admin, names)
