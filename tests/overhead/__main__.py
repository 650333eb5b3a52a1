"""`python -m tests.overhead`: two versions of the code take turns; exit code 1 when the newer one is slower.

Without `--commit`, indexing with and without confined decoders is compared (`--sandbox`).
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from service.bench.figures import ratios
from service.bench.indexing import large_clips, small_clips
from service.bench.load import SEARCHES_EACH
from service.bench.parts import default_cache
from tests.overhead.sides import Side, search_seconds, texts_of, tree_of
from tests.support.paths import ROOT

#: The newer side may take this much longer.
BAR = 1.03
_SMALL, _LARGE = 24, 2
_SEARCHES = 64
_MOST_CLIENTS = 32


def alternately(
    sides: Sequence[Side], repeats: int, measure: Callable[[Side], Sequence[float]]
) -> list[list[tuple[float, ...]]]:
    """Measure both sides in turn, after one turn that does not count; each time the other one begins.

    Returns:
        For each side, for each figure of `measure`, a value a repetition.
    """
    values: dict[str, list[Sequence[float]]] = {side.name: [] for side in sides}
    for turn in range(repeats + 1):
        for side in sides if turn % 2 else sides[::-1]:
            measured = measure(side)
            if turn:
                values[side.name].append(measured)
    return [list(zip(*values[side.name], strict=True)) for side in sides]


def report(name: str, old: Sequence[float], new: Sequence[float], *, judged: bool = True) -> bool:
    """Print a ratio. → Whether it meets the bar."""
    compared = ratios(new, old)
    median = statistics.median(compared)
    passed = not judged or median <= BAR
    verdict = ("pass" if passed else "MISS") if judged else ""
    sys.stdout.write(
        f"{name:<44} {median:6.3f}  ({min(compared):.3f} to {max(compared):.3f}, n {len(compared)})  "
        f"{statistics.median(old):8.3f} s → {statistics.median(new):8.3f} s  {verdict}\n"
    )
    sys.stdout.flush()
    return passed


def compare_indexing(sides: Sequence[Side], repeats: int, cache: Path) -> bool:
    """Index small and large clips."""
    passed = True
    for videos in (small_clips(cache, _SMALL), large_clips(cache, _LARGE)):

        def measure(side: Side, folder: Path = videos.folder) -> Sequence[float]:
            with tempfile.TemporaryDirectory() as library:
                spent = side.index(folder, Path(library) / "library")
            return spent.seconds, spent.cpu_seconds

        old, new = alternately(sides, repeats, measure)
        passed &= report(f"indexing {videos.label}", old[0], new[0])
        report(f"indexing {videos.label}: CPU time", old[1], new[1], judged=False)
    return passed


def compare_searching(sides: Sequence[Side], repeats: int, cache: Path, folder: Path) -> bool:
    """Search a library that each side has made, on a server of each side."""
    passed = True
    texts = texts_of(SEARCHES_EACH * _MOST_CLIENTS)
    with contextlib.ExitStack() as stack:
        servers = {}
        for number, side in enumerate(sides):
            side.index(small_clips(cache, _SMALL).folder, folder / f"library{number}")
            server = servers[side.name] = stack.enter_context(side.serving(folder / f"library{number}"))
            server.warm_up(texts, _MOST_CLIENTS)
        for rerank in (False, True):
            for clients in (1, 8, _MOST_CLIENTS):
                count = max(_SEARCHES, clients * SEARCHES_EACH)

                def measure(
                    side: Side, rerank: bool = rerank, clients: int = clients, count: int = count
                ) -> Sequence[float]:
                    server = servers[side.name]
                    before = server.cpu_seconds
                    seconds = search_seconds(server.port, texts[:count], clients, rerank=rerank)
                    return seconds, server.cpu_seconds - before

                old, new = alternately(sides, repeats, measure)
                kind = "re-ranked searches" if rerank else "searches"
                who = "1 client" if clients == 1 else f"{clients} clients"
                passed &= report(f"{count} {kind}, {who}", old[0], new[0])
                report(f"{count} {kind}, {who}: CPU time", old[1], new[1], judged=False)
    return passed


def main() -> int:
    """Run the command; the exit code is 1 when a median is above the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.overhead", description=__doc__)
    parser.add_argument("--commit", help="the earlier version; without it, indexing without a sandbox")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each side (9)")
    parser.add_argument("--only", choices=("indexing", "searching"), help="compare only this")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the videos")
    parser.add_argument("--bundle", type=Path, help="a bundle that both versions read; default: each its own")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.commit:
            tree = stack.enter_context(tree_of(options.commit))
            old = Side(options.commit, tree, bundle=options.bundle)
        else:
            old = Side("--sandbox off", ROOT, ("--sandbox", "off"), options.bundle)
        sides = (old, Side("this code", ROOT, bundle=options.bundle))
        sys.stdout.write(f"how much longer this code takes than {old.name}; the bar is {BAR}\n")
        passed = True
        if options.only != "searching":
            passed &= compare_indexing(sides, options.repeats, options.cache)
        if options.only != "indexing" and options.commit:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            passed &= compare_searching(sides, options.repeats, options.cache, folder)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
