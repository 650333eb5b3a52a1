"""Jobs of a test's server: starting, following and waiting for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.server import START_SECONDS, Server

JOBS = {"REELFIND_JOBS": "1"}
ENDED = ("succeeded", "failed", "cancelled")


def start_job(server: Server, *paths: Path | str, **options: object) -> dict[str, Any]:
    """Start a job."""
    response = server.client.post("/v1/jobs/index", json={"paths": [str(path) for path in paths], **options})
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['job_id']}"
    return job


def read_job(server: Server, job_id: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A job as it is now."""
    response = server.client.get(f"/v1/jobs/{job_id}", headers=headers)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job


def wait_for(server: Server, job_id: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A job once it has ended."""
    deadline = time.monotonic() + START_SECONDS
    while (job := read_job(server, job_id, headers))["state"] not in ENDED:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def follow(
    client: httpx.Client, job_id: str, after: str | None = None, key: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The events of a job until the stream ends: id, name and data of each."""
    headers = dict(key or {}) if after is None else {"Last-Event-ID": after, **(key or {})}
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=60.0) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "id" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}
