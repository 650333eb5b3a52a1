"""What the Dockerfile says, stage by stage."""

import shlex
from dataclasses import dataclass

from tests.support.paths import ROOT


@dataclass(frozen=True)
class Stage:
    """A stage: the image or stage that it starts from, and what it does."""

    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """The arguments of all instructions of a name."""
        return [argument for keyword, argument in self.instructions if keyword == name]


def read_stages() -> dict[str, Stage]:
    """The stages by their names."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for line in filter(None, map(str.strip, lines.splitlines())):
        keyword, _, argument = line.partition(" ")
        if keyword == "FROM":
            base, _, name = argument.partition(" AS ")
            current: list[tuple[str, str]] = []
            stages[name] = (base, current)
        else:
            current.append((keyword, argument.strip()))
    return {name: Stage(base, tuple(found)) for name, (base, found) in stages.items()}


STAGES = read_stages()


def lineage(target: str) -> list[Stage]:
    """A target's stages, from the image it starts from to itself."""
    stage = STAGES[target]
    return [*(lineage(stage.base) if stage.base in STAGES else []), stage]


def last(target: str, keyword: str) -> str:
    """The argument of a target's last instruction of a name."""
    return [argument for stage in lineage(target) for argument in stage.all(keyword)][-1]


def environment(target: str) -> dict[str, str]:
    """The environment that a target sets."""
    pairs = [shlex.split(argument) for stage in lineage(target) for argument in stage.all("ENV")]
    return dict(pair.split("=", 1) for group in pairs for pair in group)
