"""How videos were recorded, over HTTP: in records, lists and hits, and as filters and orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.indexer.test_file_facts import IPHONE, write_video
from tests.support.server import running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    made = ToyLibrary(tmp_path / "media", tmp_path / "library", make_toy_bundle(tmp_path / "bundle"))
    made.media.mkdir()
    write_video(made.media / "phone.mov", IPHONE, sound=True)
    write_video(made.media / "VID_20240131_154502.mp4")
    made.index()
    return made


def test_recordings_are_shown_and_compared(toy: ToyLibrary) -> None:
    with running_server(*toy.options) as server:
        video = server.client.get(f"/v1/videos/{server.video_id('phone.mov')}").json()
        shown = {
            "captured_at": "2023-07-14T18:22:31+02:00",
            "captured_source": "tag_with_zone",
            "place": {"latitude": 48.8584, "longitude": 2.2945, "altitude_metres": 35.0},
            "camera": "Apple iPhone 12",
            "has_sound": True,
        }
        assert {key: video[key] for key in shown} == shown
        assert video["audio_codec"] == "aac"
        hits = server.search("red", group_by="video", top_k=5)
        hit = next(hit for hit in hits if hit["video_id"] == video["video_id"])
        assert {key: hit[key] for key in shown} == shown
        named = server.client.get(f"/v1/videos/{server.video_id('154502.mp4')}").json()
        assert (named["captured_at"], named["captured_source"]) == ("2024-01-31T15:45:02Z", "file_name")
        assert (named["place"], named["camera"], named["has_sound"]) == (None, None, False)

        def listed(where: dict[str, Any] | None = None, sort: str | None = None) -> list[str]:
            answer = server.client.post("/v1/videos/list", json={"filter": where, "sort": sort})
            return [Path(each["path"]).name for each in answer.json()["videos"]]

        assert listed({"op": "range", "field": "captured_at", "lt": "2024-01-01"}) == ["phone.mov"]
        # It is 18:22 in Paris then.
        assert listed({"op": "equals", "field": "captured_at", "value": "2023-07-14T16:22:31Z"})
        assert listed({"op": "equals", "field": "has_sound", "value": True}) == ["phone.mov"]
        assert listed({"op": "contains", "field": "camera", "value": "iphone"}) == ["phone.mov"]
        assert listed({"op": "range", "field": "latitude", "gt": 48, "lt": 49}) == ["phone.mov"]
        assert listed(sort="-captured_at") == ["VID_20240131_154502.mp4", "phone.mov"]
        assert listed(sort="captured_at") == ["phone.mov", "VID_20240131_154502.mp4"]
