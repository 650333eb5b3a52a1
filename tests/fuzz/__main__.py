"""`python -m tests.fuzz`: index thousands of damaged media files; exit code 1 when one is not handled."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.corpus import Corpus
from tests.fuzz.rounds import LIMITS, Round, index_round
from tests.support.toy_bundle import make_toy_bundle

#: Files in one run of the indexer.
ROUND_FILES = 500
_SHOWN = 10


@dataclass(kw_only=True)
class Report(Round):
    """What all rounds showed together.

    Attributes:
        seed: the corpus's.
        wanted: how many files should be indexed.
        seconds: how long it took.
    """

    seed: int
    wanted: int
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every file got its verdict and nothing went wrong."""
        return not self.faults and len(self.outcomes) >= self.wanted

    def lines(self) -> list[str]:
        """The report, as it is printed."""
        verdicts = Counter(outcome.verdict for outcome in self.outcomes.values())
        slowest = sorted(self.outcomes.items(), key=lambda item: -item[1].seconds)[:_SHOWN]
        crashed = [name for name, outcome in self.outcomes.items() if outcome.crashed]
        lines = [
            f"{len(self.outcomes):,} of {self.wanted:,} files in {self.seconds:.0f} s, seed {self.seed}",
            "verdicts: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common()),
            _memory("the indexing process", self.parent_peak, LIMITS.parent_bytes),
            _memory("a decoding process", self.worker_peak, LIMITS.worker_bytes)
            + f", at most {self.worker_bound >> 20} MiB",
            *(f"  while reading {name}" for name in self.at_worker_peak),
            f"slowest (bound {LIMITS.hang_seconds:.0f} s, of silence {LIMITS.silence_seconds:.0f} s):",
            *(f"  {outcome.seconds:6.2f} s {outcome.verdict:<11} {name}" for name, outcome in slowest),
            f"crashes of decoding processes: {len(crashed)}",
            *(f"  {name}: {self.outcomes[name].reason}" for name in crashed),
            f"faults: {len(self.faults)}",
        ]
        for fault in self.faults:
            lines.append(f"  {fault.what}")
            lines += [f"    {name}: {repeat_command(self.seed, name)}" for name in fault.names]
        if len(self.outcomes) < self.wanted and not self.faults:
            lines.append("  time was up: give more --minutes, or fewer --files")
        return lines


def _memory(whose: str, peak: int, bound: int) -> str:
    return f"peak memory of {whose}: {peak >> 20} MiB (bound {bound >> 20})"


def repeat_command(seed: int, name: str) -> str:
    """The command that indexes one damaged file again."""
    return f'make fuzz ARGS="--seed {seed} --only {int(name.partition("-")[0])}"'


def fuzz(
    seed: int, numbers: Sequence[int], *, minutes: float, workers: int, output: Path, quiet: bool = False
) -> Report:
    """Index the damaged files with these numbers. Files that are in a fault are kept in `output`."""
    corpus = Corpus(seed)
    report = Report(seed=seed, wanted=len(numbers))
    started = time.monotonic()
    deadline = started + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="reelfind-fuzz-") as temporary:
        bundle = make_toy_bundle(Path(temporary) / "bundle")
        pending = list(numbers)
        while pending and time.monotonic() < deadline:
            folder = Path(temporary) / "round"
            (folder / "media").mkdir(parents=True)
            batch, pending = pending[:ROUND_FILES], pending[ROUND_FILES:]
            names = {corpus.write(number, folder / "media").name: number for number in batch}
            done = index_round(folder, list(names), bundle, workers, deadline=deadline)
            report.add(done)
            named = {name for fault in done.faults for name in fault.names}
            for name in named & set(names):
                output.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / "media" / name, output / name)
            if done.faults and not done.interrupted and named:
                # The run may have ended early: what it did not come to is indexed in the next one.
                pending = [n for name, n in names.items() if name not in named | set(done.outcomes)] + pending
            shutil.rmtree(folder)
            if not quiet:
                seconds = time.monotonic() - started
                sys.stderr.write(
                    f"{len(report.outcomes):,} files, {len(report.faults)} faults, {seconds:.0f} s\n"
                )
    report.seconds = time.monotonic() - started
    return report


def main() -> int:
    """Run the command; the exit code is 1 when a file was not handled or time was up too early."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="stop after this long (20)")
    parser.add_argument("--files", type=int, default=10_000, help="how many damaged files (10000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other damage (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first file (0)")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the files to index, and no others")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="decoding processes"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(tempfile.gettempdir()) / "reelfind-fuzz-faults",
        help="folder for the files that were not handled",
    )
    options = parser.parse_args()
    numbers = options.only or range(options.first, options.first + options.files)
    report = fuzz(
        options.seed, numbers, minutes=options.minutes, workers=options.workers, output=options.output
    )
    if options.only:
        for name, outcome in report.outcomes.items():
            sys.stdout.write(f"{name}: {outcome.verdict} after {outcome.seconds:.2f} s: {outcome.reason}\n")
    sys.stdout.write("\n".join(report.lines()) + "\n")
    if report.faults:
        sys.stdout.write(f"the files are in {options.output}\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
