"""A library of which a key sees one folder, and the ways around its wall that tests try."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.keys import bearer, make_key
from tests.support.server import Server
from tests.support.toy_library import ToyLibrary, make_library

#: An id that no video has.
UNKNOWN = "0" * 32
#: A request: method, path and JSON.
Request = tuple[str, str, dict[str, Any] | None]

#: About a video, whose id stands in place of {id}: what is hidden answers as what does not exist.
ABOUT_A_VIDEO: list[Request] = [
    ("GET", "/v1/videos/{id}", None),
    ("GET", "/v1/videos/{id}/media", None),
    ("HEAD", "/v1/videos/{id}/media", None),
    ("GET", "/v1/frames/{id}-00000-00.jpg", None),
    ("GET", "/v1/frames/{id}-00000-00.jpg?snapshot=1", None),
    ("GET", "/v1/frames/{id}-00099-00.jpg", None),
    ("GET", "/v1/videos/{id}/poster.jpg", None),
    ("GET", "/v1/videos/{id}/poster.jpg?snapshot=1", None),
    ("POST", "/v1/videos/{id}/moments", {"query": {"text": "red"}}),
    ("POST", "/v1/videos/{id}/moments", {"query": {"text": ""}}),
    ("POST", "/v1/videos/{id}/moments", {"query": {"text": "red"}, "top_k": 0}),
    ("POST", "/v1/videos/{id}/answer", {"question": {"text": "red"}}),
    ("POST", "/v1/search", {"query": {"frame_id": "{id}-00000-00"}}),
    ("POST", "/v1/search", {"query": {"frame_id": "{id}-00000-00", "include_example": True}}),
    ("POST", "/v1/search", {"query": {"video_id": "{id}"}}),
    ("POST", "/v1/search", {"query": {"video_id": "{id}", "start_seconds": 0, "end_seconds": 1}}),
    ("POST", "/v1/search", {"query": {"text": "red", "example": {"video_id": "{id}"}}}),
    ("POST", "/v1/search", {"query": {"like": [{"frame_id": "{id}-00000-00"}]}}),
    (
        "POST",
        "/v1/search",
        {"query": {"original": {"text": "red"}, "unlike": [{"frame_id": "{id}-00000-00"}]}},
    ),
    ("POST", "/v1/videos/{id}/moments", {"query": {"sequence": [{"text": "red"}, {"text": "blue"}]}}),
]

#: About all that there is: `filled` puts ids and folders in place of HIDDEN, SEEN and MEDIA.
ABOUT_EVERYTHING: list[Request] = [
    ("GET", "/v1/videos", None),
    ("GET", "/v1/videos?sort=-path&limit=1", None),
    ("GET", "/v1/videos?text=red", None),
    ("GET", "/v1/videos?folder=private", None),
    ("GET", "/v1/videos?folder=MEDIA/private", None),
    ("GET", "/v1/videos?folder=MEDIA", None),
    ("GET", "/v1/videos?folder=kids/../private", None),
    ("GET", "/v1/videos?offset=1&limit=1000", None),
    ("GET", "/v1/moments/random?limit=100", None),
    ("GET", "/v1/moments/random?limit=1&seed=7", None),
    ("GET", "/v1/examples?limit=100", None),
    ("POST", "/v1/videos/list", {}),
    ("POST", "/v1/videos/list", {"filter": {"op": "contains", "field": "path", "value": "a"}}),
    ("POST", "/v1/videos/list", {"filter": {"op": "under", "field": "folder", "folder": "/"}}),
    ("POST", "/v1/videos/list", {"filter": {"op": "in", "field": "video_id", "values": ["HIDDEN"]}}),
    ("POST", "/v1/videos/list", {"filter": {"op": "not", "filter": {"op": "is_null", "field": "codec"}}}),
    ("POST", "/v1/search", {"query": {"text": "red"}, "top_k": 1000}),
    ("POST", "/v1/search", {"query": {"text": "red"}, "group_by": "video", "sort": "path", "explain": True}),
    ("POST", "/v1/search", {"query": {"text": "private"}, "modalities": {"visual": 0, "name": 1}}),
    ("POST", "/v1/search", {"query": {"text": "secret tag"}}),
    (
        "POST",
        "/v1/search",
        {"query": {"text": "red"}, "filter": {"op": "contains", "field": "path", "value": "private"}},
    ),
    ("POST", "/v1/search", {"query": {"sequence": [{"text": "red"}, {"text": "green"}]}, "top_k": 1000}),
    ("POST", "/v1/search", {"query": {"video_id": "SEEN"}, "top_k": 1000, "explain": True}),
    ("POST", "/v1/search", {"query": {"frame_id": "SEEN-00000-00", "include_example": True}}),
    ("POST", "/v1/search", {"query": {"like": [{"frame_id": "SEEN-00000-00"}]}, "group_by": "video"}),
    ("POST", "/v1/search", {"query": {"text": "red", "not_text": "blue"}, "top_k": 1000}),
    (
        "POST",
        "/v1/search/batch",
        {
            "searches": [
                {"query": {"text": "red"}, "top_k": 1000},
                {"query": {"video_id": "HIDDEN"}},
                {"query": {"frame_id": "HIDDEN-00000-00"}},
                {"query": {"text": "red"}, "page_token": "AAAA"},
            ]
        },
    ),
    ("GET", "/v1/library", None),
    ("GET", "/v1/folders", None),
    ("GET", "/v1/folders?parent=kids", None),
    ("GET", "/v1/folders?parent=/", None),
    ("GET", "/v1/folders?parent=MEDIA/private", None),
    ("GET", "/v1/facets", None),
    ("GET", "/v1/tags", None),
    ("GET", "/v1/session", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("POST", "/v1/library/reload", None),
    ("GET", "/v1/videos/HIDDEN/stream", None),
    ("GET", "/v1/videos/HIDDEN/clip?start=0&end=1", None),
    ("PATCH", "/v1/videos/HIDDEN", {"title": "mine"}),
    ("DELETE", "/v1/videos/HIDDEN?media=true", None),
]


def make_walled_library(root: Path) -> ToyLibrary:
    """Videos in the folder `kids`, one of which is also elsewhere, and in others."""
    films = {
        "kids/blue.mp4": [("blue", 1.0)],
        "kids2/green.mp4": [("green", 1.0)],
        "private/red.mp4": [("red", 1.0)],
        "kid.mp4": [("yellow", 1.0)],
        "private/shared.mp4": [("white", 1.0)],
    }
    toy = make_library(root, films)
    # The place that was found first is the first one of a video.
    shutil.copy2(toy.media / "private" / "shared.mp4", toy.media / "kids" / "copy.mp4")
    toy.index()
    return toy


def tell_secrets(server: Server, toy: ToyLibrary) -> None:
    """Give a hidden video a title and a tag."""
    path = f"/v1/videos/{ids_of(server, toy)['private/red.mp4']}"
    change = {"tags": ["secret tag"], "title": "secret title"}
    answer = server.client.patch(path, json=change, headers=bearer(make_key(toy, "admin")))
    assert answer.status_code == 200, answer.text


def ids_of(server: Server, toy: ToyLibrary) -> dict[str, str]:
    """The id of the video in each place, by its path within the media folder."""
    videos = server.client.get("/v1/videos", headers=bearer(make_key(toy, "admin"))).json()["videos"]
    return {
        os.path.relpath(file["path"], toy.media): video["video_id"]
        for video in videos
        for file in video["files"]
    }


def without_ids(text: str, video_id: str) -> str:
    """The text of a problem without what differs in each."""
    return text.replace(video_id, "ID").partition('"instance"')[0]


def filled(
    path: str, body: Mapping[str, Any] | None, toy: ToyLibrary, ids: Mapping[str, str]
) -> tuple[str, Any]:
    """Path and JSON of a request of `ABOUT_EVERYTHING`."""

    def fill(text: str) -> str:
        return (
            text.replace("MEDIA", str(toy.media))
            .replace("HIDDEN", ids["private/red.mp4"])
            .replace("SEEN", ids["kids/blue.mp4"])
        )

    return fill(path), None if body is None else json.loads(fill(json.dumps(body)))


def leaks(path: str, sent: Any, status: int, said: str, toy: ToyLibrary, ids: Mapping[str, str]) -> list[str]:
    """What an answer to a key of `kids` tells of the rest."""
    for asked in (path, json.dumps(sent)):
        for word in ("private", str(toy.media), ids["private/red.mp4"], "secret"):
            # An error may repeat what was asked; a batch answers with the errors of its searches.
            is_error = status != 200 or path.endswith("batch")
            said = said.replace(word, "") if word in asked and is_error else said
    hidden = {video for name, video in ids.items() if not name.startswith("kids/")} - {ids["kids/copy.mp4"]}
    words = ("red.mp4", "shared", "green.mp4", "kid.mp4", "kids2", str(toy.media), "secret", *hidden)
    return [word for word in words if word in said]
