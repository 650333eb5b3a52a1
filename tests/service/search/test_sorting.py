"""Orders of videos, and counts of them, against naive twins."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest

from service.errors import NotFoundError, QueryError
from service.search.fields import Facts
from service.search.folders import facets, folder_level
from service.search.sorting import SORT_FIELDS, Sort, parse_sort, ranks_of
from tests.support.catalogs import catalog_of

VIDEOS: list[dict[str, Any]] = [
    {"paths": ["/m/b/2.mp4"], "title": "Zebra", "duration_seconds": 7200.0, "codec": "hevc"},
    {"paths": ["/m/b/c/1.mp4", "/m/a/1.mp4"], "title": "apple", "duration_seconds": 3600.0},
    {"paths": ["/m/B/3.mp4"], "title": None, "duration_seconds": 1800.0},
    {"paths": ["/m/bad.mp4"], "title": "Äpfel", "num_segments": 0, "verdict": "corrupt", "reason": "torn"},
    {"paths": ["/m/bad2.mp4"], "title": "apple", "num_segments": 0, "verdict": "corrupt", "reason": "torn"},
]
FACTS = Facts(catalog_of(VIDEOS))
#: In the order of the catalog.
SHOWN = sorted(VIDEOS, key=lambda video: min(video["paths"]))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("field", ["title", "duration_seconds", "path", "codec"])
def test_orders(field: str, descending: bool) -> None:
    def key(video: dict[str, Any]) -> Any:
        value = video.get(field, {"codec": "h264", "duration_seconds": 1.0}.get(field))
        if field == "path":
            value = (max if descending else min)(path.lower() for path in video["paths"])
        return unicodedata.normalize("NFC", value).lower().encode() if isinstance(value, str) else value

    with_value = [row for row in range(len(SHOWN)) if key(SHOWN[row]) is not None]
    without = [row for row in range(len(SHOWN)) if key(SHOWN[row]) is None]
    expected = sorted(with_value, key=lambda row: key(SHOWN[row]), reverse=descending)
    ranks = ranks_of(Sort(field, descending), FACTS)
    found = np.argsort(ranks, kind="stable").tolist()
    values = [key(SHOWN[row]) for row in found]
    assert values == [key(SHOWN[row]) for row in [*expected, *without]]
    for a in range(len(SHOWN)):
        for b in range(a):
            assert (ranks[a] == ranks[b]) == (key(SHOWN[a]) == key(SHOWN[b]))


def test_every_order_can_be_named() -> None:
    for name in SORT_FIELDS:
        assert parse_sort(name) == Sort(name)
        assert parse_sort(f"-{name}") == Sort(name, descending=True)
        assert len(ranks_of(Sort(name), FACTS)) == len(SHOWN)
    for wrong in ("", "-", "--title", "size", "has_cuts"):
        with pytest.raises(QueryError, match=r"is not an order\. Choose one of path"):
            parse_sort(wrong)


@pytest.mark.parametrize("parent", [None, "/", "/m", "/m/", "/m/b", "/m/b/c", "/m/a"])
def test_folders(parent: str | None) -> None:
    level = folder_level(FACTS, parent)
    top = PurePosixPath(parent or "/m")
    assert level.folder.path == str(top)
    expected: dict[str, set[int]] = {}
    for i, video in enumerate(SHOWN):
        for path in map(PurePosixPath, video["paths"]):
            for above in path.parents:
                if above.parent == top and above != top:
                    expected.setdefault(str(above), set()).add(i)
    assert {folder.path: folder.num_videos for folder in level.folders} == {
        path: len(owners) for path, owners in expected.items()
    }
    for folder in level.folders:
        hours = sum(
            SHOWN[i].get("duration_seconds", 1.0) / 3600
            for i in expected[folder.path]
            if SHOWN[i].get("num_segments", 1)
        )
        assert folder.hours == pytest.approx(hours, abs=1e-4)
        assert folder.has_folders == bool(folder_level(FACTS, folder.path).folders)


def test_folders_of_some_videos() -> None:
    only = np.array([video["title"] == "Zebra" for video in SHOWN])
    level = folder_level(FACTS, None, only)
    assert (level.folder.path, level.folder.num_videos, level.folders) == ("/m/b", 1, [])
    for parent in ("/m/a", "/n", "m"):
        with pytest.raises(NotFoundError, match="No video is in"):
            folder_level(FACTS, parent, only)
    assert folder_level(FACTS, None, np.zeros(len(SHOWN), np.bool_)).folder.num_videos == 0


def test_facets() -> None:
    found = facets(FACTS)
    assert found.num_videos == 5
    assert [(x.value, x.num_videos) for x in found.values["codec"]] == [("h264", 4), ("hevc", 1)]
    assert [(x.value, x.num_videos) for x in found.values["verdict"]] == [("ok", 3), ("corrupt", 2)]
    assert [(x.verdict, x.reason, x.num_videos) for x in found.failures] == [("corrupt", "torn", 2)]
