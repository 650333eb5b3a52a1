"""The events of a job as a stream that browsers read with `EventSource` (server-sent events)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from service.api.job_answers import JobView, event_data
from service.jobs.files import JobFiles

MEDIA_TYPE = "text/event-stream"
_POLL_SECONDS = 0.2
#: A comment is sent after so long a silence, so that proxies keep the connection open.
_SILENCE_SECONDS = 15.0


async def event_stream(
    files: JobFiles,
    after: int,
    view: JobView,
    has_ended: Callable[[], bool],
    is_stopping: Callable[[], bool],
) -> AsyncIterator[bytes]:
    """The events from a place on, until the job has ended or the server stops.

    Args:
        files: those of the job.
        after: the id of the last event that the client has; 0: it has none.
        view: what the client sees.
        has_ended: whether the job has ended: no further events come. Read in another thread.
        is_stopping: whether the server stops.
    """
    last_sent = time.monotonic()
    while not is_stopping():
        # Asked first: what is written before the end is read after it was asked.
        ended = await run_in_threadpool(has_ended)
        events = await run_in_threadpool(files.read_events, after)
        for event in events:
            after = event.event_id
            data = event_data(event, view)
            if data is not None:
                yield f"id: {after}\nevent: {event.name}\ndata: {json.dumps(data)}\n\n".encode()
        if events:
            last_sent = time.monotonic()
            continue
        if ended:
            return
        if time.monotonic() - last_sent > _SILENCE_SECONDS:
            last_sent = time.monotonic()
            yield b": nothing new\n\n"
        await asyncio.sleep(_POLL_SECONDS)
