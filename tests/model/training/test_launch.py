"""Several processes train as one: the same batches, losses and weights; their errors arrive as one line.

`train.processes` starts them, or torchrun. Here each torchrun takes the part of a host.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import yaml

from model.config import Config
from model.data.stills import read_stills
from model.processes import Place
from model.runtime.errors import InputError, ReelfindError
from model.settings import to_mapping
from model.training.alike import difference, facts
from model.training.launch import check_processes, launch
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


@pytest.fixture(scope="module")
def alone(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run of one process."""
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    launch(lambda: config, lambda _: None, tokenizer)
    return config


def recipe_of(config: Config, path: Path) -> Path:
    """A recipe for commands; the run's own copy of the tokenizer is what they read."""
    path.write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
    output = Path(config.output)
    output.mkdir(exist_ok=True)
    make_tokenizer(output / "tokenizer.json")
    return path


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def torchrun(processes: int, *options: str) -> list[str]:
    """The start of a command, as in model/README.md."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *options]
    return [*command, "-m", "model.cli", "train"]


def run_on_hosts(recipe: Path, *settings: list[str]) -> list[tuple[int, list[str]]]:
    """Train by a torchrun of one process for each host, with its own settings; exit codes and own lines."""
    port = str(free_port())
    hosts = [
        subprocess.Popen(
            [
                *torchrun(1, f"--nnodes={len(settings)}", f"--node-rank={host}"),
                *(str(recipe), *of_host),
            ],
            env=os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for host, of_host in enumerate(settings)
    ]
    return [(process.returncode, own_lines(said)) for process in hosts for said in process.communicate()[1:]]


def own_lines(text: str) -> list[str]:
    """What the command says, without what torchrun adds."""
    return [line for line in text.splitlines() if re.match(r"step |error|stopped|interrupted|resumed", line)]


def check_same(alone: Config, two: Config) -> None:
    """The losses of all steps, the weights and the banks are those of one process."""
    steps, together = rows(alone), rows(two)
    assert len(steps) == len(together) == 3
    for a, b in zip(steps, together, strict=True):
        assert b == pytest.approx(a, rel=2e-3)
    states = [torch.load(Path(c.output) / "last.pt", weights_only=True)["model"] for c in (alone, two)]
    begun = torch.load(Path(alone.output) / "start.pt", weights_only=True)["model"]
    names = [name for name, value in begun.items() if name.startswith(("online.", "fusion."))]
    moved = sum(float((states[0][name] - begun[name]).square().sum()) for name in names)
    apart = sum(float((states[0][name] - states[1][name]).square().sum()) for name in names)
    # Not zero: Adam makes steps of the rounding where a gradient has no size of its own.
    assert apart < 1e-3 * moved
    torch.testing.assert_close(states[1]["bank.videos"], states[0]["bank.videos"], atol=1e-3, rtol=1e-2)
    assert torch.equal(states[0]["bank.owners"], states[1]["bank.owners"])


def test_two_processes_train_as_one_with_the_joined_batch(alone: Config, tmp_path: Path) -> None:
    words: list[str] = []
    two = dataclasses.replace(
        alone,
        output=str(tmp_path / "two"),
        train=dataclasses.replace(alone.train, processes=2, threads=2),
    )
    launch(lambda: two, words.append, make_tokenizer(tmp_path / "tokenizer.json"))
    assert sum(word.startswith("step 3/3 ") for word in words) == 1, "one process speaks for all"
    check_same(alone, two)


def test_two_hosts_train_as_one_and_each_fills_a_cache_of_its_own(alone: Config, tmp_path: Path) -> None:
    two = dataclasses.replace(alone, output=str(tmp_path / "two"))
    caches = [tmp_path / "first", tmp_path / "second"]
    recipe = recipe_of(two, tmp_path / "recipe.yaml")
    (code, lines), silent = run_on_hosts(recipe, *([f"data.cache={cache}"] for cache in caches))
    assert (code, silent) == (0, (0, []))
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    check_same(alone, two)
    files = [{file.relative_to(cache) for file in cache.rglob("*.npy")} for cache in caches]
    assert files[0] == files[1] != set()


def test_a_host_without_the_runs_folder_is_refused_once_on_each_host(alone: Config, tmp_path: Path) -> None:
    """The first host has the finished run, the second an empty folder."""
    other = dataclasses.replace(alone, output=str(tmp_path / "other"))
    recipe = recipe_of(alone, tmp_path / "recipe.yaml")
    recipe_of(other, tmp_path / "other.yaml")
    hosts = run_on_hosts(recipe, [], [f"output={other.output}"])
    errors = [[line for line in lines if line.startswith("error")] for _, lines in hosts]
    assert [len(of_host) for of_host in errors] == [1, 1]
    assert all(code for code, _ in hosts)
    assert all(
        "process 2 of 2 starts at another step than the first: share output=" in error for (error,) in errors
    )
    assert sum(bool(re.match(r"error: process . of 2, on ", error)) for (error,) in errors) == 1


def test_other_settings_texts_or_steps_are_told_apart(alone: Config, tmp_path: Path) -> None:
    stills = read_stills(Path(alone.data.path), "train")
    training, fewer = [stills.captions], [stills.first(5).captions]
    own = facts(alone, training, 3)
    assert difference([own, own], tmp_path) is None
    elsewhere = dataclasses.replace(alone, data=dataclasses.replace(alone.data, path="/elsewhere"))
    assert facts(elsewhere, training, 3) == own
    rates = dataclasses.replace(alone, train=dataclasses.replace(alone.train, lr_head=7e-4))
    settings = difference([own, facts(rates, training, 3)], tmp_path)
    assert settings is not None
    assert settings.startswith("process 2 of 2 has other settings than the first")
    texts = difference([own, own, facts(alone, fewer, 3)], tmp_path)
    assert texts is not None
    assert texts.startswith("process 3 of 3 reads other data than the first")


def test_torchruns_processes_show_a_mistake_once(config: Config, tmp_path: Path) -> None:
    recipe = recipe_of(dataclasses.replace(config, output=str(tmp_path / "broken")), tmp_path / "recipe.yaml")
    command = [*torchrun(2, "--standalone"), str(recipe), f"data={tmp_path / 'nowhere'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    (error,) = own_lines(done.stderr)
    assert error.startswith(
        f"error: no captions.csv in {tmp_path / 'nowhere'}: name the folder that holds it"
    )
    assert "model/training" not in done.stderr, "no traceback of ours"


def test_a_mistake_under_torchrun_alone_is_a_plain_error(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    for name, value in (variables | {"MASTER_PORT": free_port()}).items():
        monkeypatch.setenv(name, str(value))
    both = dataclasses.replace(config, train=dataclasses.replace(config.train, processes=2))
    with pytest.raises(InputError, match=r"train.processes=2, and torchrun .* leave train.processes out"):
        launch(lambda: both, lambda _: None)


def test_torchruns_processes_must_divide_a_batch(config: Config) -> None:
    check_processes(config, Place(0, 2, 0, 2))
    with pytest.raises(InputError, match=r"batch_size=8 must be a multiple of the 3 processes .*--nproc"):
        check_processes(config, Place(0, 3, 0, 3))


def test_an_error_in_a_process_arrives_whole(config: Config, tmp_path: Path) -> None:
    broken = dataclasses.replace(
        config,
        output=str(tmp_path / "broken"),
        data=dataclasses.replace(config.data, path=str(tmp_path / "nowhere")),
        train=dataclasses.replace(config.train, processes=2),
    )
    with pytest.raises(ValueError, match=r"no captions\.csv in .*nowhere: name the folder that holds it"):
        launch(lambda: broken, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))


def test_a_bug_in_a_process_arrives_with_its_traceback(config: Config, tmp_path: Path) -> None:
    train = dataclasses.replace(config.train, processes=2)
    object.__setattr__(train, "threads", "two")  # past the checks of the settings
    broken = dataclasses.replace(config, output=str(tmp_path / "broken"))
    object.__setattr__(broken, "train", train)
    with pytest.raises(RuntimeError, match=r"^TypeError: ") as raised:
        launch(lambda: broken, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))
    assert "Traceback (most recent call last)" in raised.value.__notes__[0]
    assert "set_num_threads" in raised.value.__notes__[0]


def test_a_killed_process_ends_the_others(config: Config, tmp_path: Path) -> None:
    endless = dataclasses.replace(
        config,
        output=str(tmp_path / "killed"),
        train=dataclasses.replace(config.train, processes=2, epochs=1000),
    )

    def report(line: str) -> None:
        if line.startswith("step 2/"):
            multiprocessing.active_children()[-1].kill()

    with pytest.raises(ReelfindError, match=r"^a training process ended with code -9 and no message$"):
        launch(lambda: endless, report, make_tokenizer(tmp_path / "tokenizer.json"))
    assert not multiprocessing.active_children()


def test_signals_end_all_processes_after_the_step_and_any_launcher_goes_on(
    config: Config, tmp_path: Path
) -> None:
    """SIGTERM to torchrun, then Ctrl-C as in a terminal: the signal reaches the whole group of processes."""
    output = tmp_path / "stopped"
    settings = dataclasses.replace(
        config, output=str(output), train=dataclasses.replace(config.train, threads=2, epochs=100)
    )
    recipe = str(recipe_of(settings, tmp_path / "recipe.yaml"))

    def run(command: list[str], until: str, number: signal.Signals) -> tuple[int, list[str]]:
        """Send the signal once a line begins so; the exit code and all own lines."""
        text = ""
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                text += line
                if line.startswith(until):
                    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert "FutureWarning" not in text
        return process.returncode, own_lines(text)

    code, lines = run([*torchrun(2, "--standalone"), recipe], "step 2/", signal.SIGTERM)
    assert code != 0
    assert lines[-1] == "interrupted: repeat the command to resume a training run"
    stopped = torch.load(output / "last.pt", weights_only=True)["step"]
    assert 2 <= stopped < 300
    assert lines[-2] == f"stopped after step {stopped}, saved in {output}/last.pt"

    spawned = [sys.executable, "-m", "model.cli", "train", recipe, "train.processes=2"]
    code, lines = run(spawned, f"step {stopped + 1}/", signal.SIGINT)
    assert code == 130, lines
    assert lines[0] == f"resumed {output}/last.pt at step {stopped}"
    assert lines[1].startswith(f"step {stopped + 1}/")
    again = torch.load(output / "last.pt", weights_only=True)["step"]
    assert again > stopped
    assert lines[-2:] == [
        f"stopped after step {again}, saved in {output}/last.pt",
        "interrupted: repeat the command to resume a training run",
    ]
