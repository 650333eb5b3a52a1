"""What is done with every imported bundle: the commands index films, and measure searches of them."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from model.runtime.bundle import Bundle
from tests.support.command_line import invoke
from tests.support.toy_videos import make_video

Parts = Sequence[tuple[str, float]]
#: the options that name a library and its bundle
Where = tuple[str | Path, ...]


def index_films(home: Path, bundle: Bundle, films: Mapping[str, Parts], fps: int = 4) -> Where:
    """Make films of colours and index them; returns the options that name the library and the bundle."""
    for name, parts in films.items():
        make_video(home / "media" / name, parts=parts, size=(64, 48), fps=fps)
    where = ("--library", home / "library", "--bundle", bundle.folder)
    indexed = invoke("index", home / "media", *where)
    assert indexed.exit_code == 0, indexed.output
    return where


def recall_at_10(home: Path, where: Where, text: str, films: Collection[str]) -> float:
    """R@10 of one text that asks for each film in turn."""
    queries = home / "queries.jsonl"
    queries.write_text("".join(json.dumps({"query": text, "video": name}) + "\n" for name in films))
    measured = invoke("eval", "--queries", queries, "--json", *where)
    assert measured.exit_code == 0, measured.output
    recall: float = json.loads(measured.stdout)["R@10"]
    return recall
