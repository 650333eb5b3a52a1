"""Follows the events of a job (server-sent events), also when the connection is lost meanwhile."""

import json
from dataclasses import replace

import httpx

from service.client.call import Call
from service.client.job_answers import JobEvent


class Following:
    """What has been read of a job's events, and the request for the rest of them."""

    def __init__(self, first: Call[None]) -> None:
        self._call = first
        self._fields: dict[str, str] = {}
        self._has_new = False

    def call(self) -> Call[None]:
        """The request for the events that follow those that were read."""
        self._fields = {}
        self._has_new = False
        return self._call

    def event(self, line: str) -> JobEvent | None:
        """The event that a line of the stream completes; None: none."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if not {"id", "event", "data"} <= fields.keys():
            return None  # a comment, which keeps the connection open
        event = JobEvent(fields["id"], fields["event"], json.loads(fields["data"]))
        self._call = replace(self._call, headers={"last-event-id": event.event_id})
        self._has_new = True
        return event

    def is_over(self, response: httpx.Response) -> bool:
        """Whether no events follow a stream that has ended.

        A service that stops ends its streams too; it is asked again until it says that there is nothing more.
        """
        return response.status_code == httpx.codes.NO_CONTENT or not self._has_new
