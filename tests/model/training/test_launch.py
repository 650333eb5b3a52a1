"""Several processes train as one: the same batches, losses and weights; their errors arrive as one line."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import yaml

from model.config import Config
from model.settings import to_mapping
from model.training.launch import launch
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Without dropout, which each process draws for itself."""
    folder = tmp_path_factory.mktemp("launch")
    base = tiny_config(make_photos(folder / "data"), folder / "one", epochs=1, accumulate=1)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, dropout=0.0),
        data=dataclasses.replace(base.data, cache=str(folder / "cache"), workers=0),
        loss=dataclasses.replace(base.loss, warmup_epochs=0, batch_negatives=True),
    )


def rows(config: Config) -> list[dict[str, float]]:
    path = Path(config.output) / "log.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_processes_train_as_one_with_the_joined_batch(config: Config, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    words: list[str] = []
    launch(config, lambda _: None, tokenizer)
    two = dataclasses.replace(
        config,
        output=str(tmp_path / "two"),
        train=dataclasses.replace(config.train, processes=2, threads=2),
    )
    launch(two, words.append, tokenizer)
    assert sum(word.startswith("step 3/3 ") for word in words) == 1, "one process speaks for all"
    alone, together = rows(config), rows(two)
    assert len(alone) == len(together) == 3
    for a, b in zip(alone, together, strict=True):
        assert b == pytest.approx(a, rel=2e-3)
    states = [torch.load(Path(c.output) / "last.pt", weights_only=True)["model"] for c in (config, two)]
    begun = torch.load(Path(config.output) / "start.pt", weights_only=True)["model"]
    names = [name for name, value in begun.items() if name.startswith(("online.", "fusion."))]
    moved = sum(float((states[0][name] - begun[name]).square().sum()) for name in names)
    apart = sum(float((states[0][name] - states[1][name]).square().sum()) for name in names)
    # Not zero: Adam makes steps of the rounding where a gradient has no size of its own.
    assert apart < 1e-3 * moved
    torch.testing.assert_close(states[1]["bank.videos"], states[0]["bank.videos"], atol=1e-3, rtol=1e-2)
    assert torch.equal(states[0]["bank.owners"], states[1]["bank.owners"])


def test_an_error_in_a_process_arrives_whole(config: Config, tmp_path: Path) -> None:
    broken = dataclasses.replace(
        config,
        output=str(tmp_path / "broken"),
        data=dataclasses.replace(config.data, path=str(tmp_path / "nowhere")),
        train=dataclasses.replace(config.train, processes=2),
    )
    with pytest.raises(ValueError, match=r"no captions\.csv in .*nowhere: pass the data set's folder"):
        launch(broken, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))


def test_a_bug_in_a_process_arrives_with_its_traceback(config: Config, tmp_path: Path) -> None:
    train = dataclasses.replace(config.train, processes=2)
    object.__setattr__(train, "threads", "two")  # past the checks of the settings
    broken = dataclasses.replace(config, output=str(tmp_path / "broken"))
    object.__setattr__(broken, "train", train)
    with pytest.raises(RuntimeError, match=r"^TypeError: ") as raised:
        launch(broken, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))
    assert "Traceback (most recent call last)" in raised.value.__notes__[0]
    assert "set_num_threads" in raised.value.__notes__[0]


def test_ctrl_c_ends_all_processes_after_the_step_and_the_command_goes_on(
    config: Config, tmp_path: Path
) -> None:
    """As in a terminal: the signal reaches the whole group, the processes and what started them."""
    output = tmp_path / "stopped"
    output.mkdir()
    make_tokenizer(output / "tokenizer.json")  # a run's own copy is what it reads
    settings = dataclasses.replace(
        config,
        output=str(output),
        train=dataclasses.replace(config.train, processes=2, threads=2, epochs=100),
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_mapping(settings)), encoding="utf-8")
    command = [sys.executable, "-c", "from model.cli import main; main()", "train", str(recipe)]

    def run(until: str) -> tuple[int, list[str]]:
        """Ctrl-C once a line begins so; the exit code and all lines."""
        lines: list[str] = []
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line.strip())
                if line.startswith(until):
                    os.killpg(process.pid, signal.SIGINT)
        return process.returncode, lines

    code, lines = run("step 2/")
    assert code == 130, lines
    assert lines[-1] == "interrupted: repeat the command to resume a training run"
    stopped = torch.load(output / "last.pt", weights_only=True)["step"]
    assert 2 <= stopped < 300
    assert lines[-2] == f"stopped after step {stopped}, saved in {output}/last.pt"
    code, lines = run(f"step {stopped + 1}/")
    assert code == 130, lines
    steps = [line.split("/")[0] for line in lines if line.startswith("step ")]
    assert steps[0] == f"step {stopped + 1}"
    assert torch.load(output / "last.pt", weights_only=True)["step"] > stopped
    assert not [line for line in lines if "FutureWarning" in line]
