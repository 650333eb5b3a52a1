"""Two processes give the losses, gradients and banks of one process with the joined batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from model import distributed
from model.families.lgdn.config import LossConfig
from model.families.lgdn.network import LGDN, LGDNBatch
from model.families.lgdn.objective import Objective
from tests.support.tiny_lgdn import tiny_batch, tiny_model

pytestmark = pytest.mark.slow

WORLD, STEPS, RATE, TAUGHT = 2, 3, 0.01, 6
# Videos that both processes show, that one shows twice, and a process whose partners are all on the other.
VIDEOS = [([3, 7, 3, 9], [7, 11, 12, 13]), ([5, 5, 5, 5], [6, 7, 6, 5]), ([1, 2, 3, 4], [5, 6, 7, 8])]
LENGTHS, PACKED = (5, 9), (4, 7)
CASES: dict[str, tuple[dict[str, Any], LossConfig]] = {
    "joint": ({"bank_size": 12}, LossConfig(batch_negatives=True)),
    "cross attention": ({"bank_size": 12, "fusion": "cross_attention"}, LossConfig(msl=False)),
    "another encoder": (
        {"bank_size": 12, "teacher_dim": TAUGHT},
        LossConfig(batch_negatives=True, teacher_mfcl=1.0, distillation=5.0),
    ),
    "GMR and CS": ({"bank_size": 12, "converter_layers": 1}, LossConfig(gmr=1.0, cs=1.0, cs_margin=4.0)),
}


def parts(step: int) -> list[LGDNBatch]:
    """The batches of the processes: texts of other lengths, other numbers of frames, some without teacher."""
    return [
        tiny_batch(
            VIDEOS[step][rank],
            seed=10 * step + rank,
            length=LENGTHS[rank],
            packed=PACKED[rank],
            taught=TAUGHT,
        )
        for rank in range(WORLD)
    ]


def joined(batches: list[LGDNBatch]) -> LGDNBatch:
    length = max(batch.input_ids.shape[1] for batch in batches)
    before, slots = 0, []
    for batch in batches:
        slots.append(batch.slots + before)
        before += len(batch.frames)
    return LGDNBatch(
        frames=torch.cat([batch.frames for batch in batches]),
        slots=torch.cat(slots),
        frame_mask=torch.cat([batch.frame_mask for batch in batches]),
        input_ids=torch.cat([distributed.pad_second(batch.input_ids, length) for batch in batches]),
        attention_mask=torch.cat([distributed.pad_second(batch.attention_mask, length) for batch in batches]),
        video_ids=torch.cat([batch.video_ids for batch in batches]),
        teacher=torch.cat([batch.teacher for batch in batches if batch.teacher is not None]),
        taught=torch.cat([batch.taught for batch in batches if batch.taught is not None]),
        counted=torch.cat([batch.counted for batch in batches if batch.counted is not None]),
    )


def train(model: LGDN, objective: nn.Module, batches: list[LGDNBatch]) -> list[dict[str, dict[str, Tensor]]]:
    """A few steps: the losses, gradients and banks of each. The first is the warm-up."""
    history = []
    for step, batch in enumerate(batches):
        model.zero_grad()
        losses = objective(batch, step, epoch=int(step > 0))
        losses["total"].backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in grads:
                    parameter.sub_(RATE * grads[name])
        model.update_momentum()
        history.append(
            {
                "losses": {name: value.detach() for name, value in losses.items()},
                "grads": grads,
                "bank": {name: value.clone() for name, value in model.bank.state_dict().items()},
            }
        )
    return history


def work(rank: int, folder: str) -> None:
    """One process: every case by DistributedDataParallel, which averages the gradients."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {}
    for name, (settings, loss) in CASES.items():
        model = tiny_model(**settings)
        objective = DistributedDataParallel(Objective(model, loss, seed=1), broadcast_buffers=False)
        results[name] = train(model, objective, [parts(step)[rank] for step in range(STEPS)])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, (str(folder),), WORLD)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the processes have: other sums round otherwise, and a bend of ReLU6 may be near."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_joined_batch(case: str, of_ranks: list[dict[str, Any]]) -> None:
    settings, loss = CASES[case]
    model = tiny_model(**settings)
    one = train(model, Objective(model, loss, seed=1), [joined(parts(step)) for step in range(STEPS)])
    for step, expected in enumerate(one):
        ranks = [history[case][step] for history in of_ranks]
        mean = {name: sum(r["losses"][name] for r in ranks) / WORLD for name in expected["losses"]}
        torch.testing.assert_close(mean, expected["losses"], rtol=1e-4, atol=1e-5)
        for rank in ranks:
            assert rank["losses"].keys() == expected["losses"].keys()
            torch.testing.assert_close(rank["grads"], expected["grads"], rtol=1e-3, atol=2e-4)
            torch.testing.assert_close(rank["bank"], expected["bank"], rtol=1e-4, atol=1e-5)
        # What is compared is not trivial: the processes' own losses differ, and each loss has a gradient.
        assert ranks[0]["losses"]["lsfm"] != ranks[1]["losses"]["lsfm"]
        assert all(step == 0 or value > 0 for value in mean.values())


def test_a_single_process_exchanges_nothing() -> None:
    x = torch.arange(6.0).view(3, 2).requires_grad_()
    assert distributed.world() == 1
    assert distributed.rank() == 0
    assert torch.equal(distributed.gather(x), x)
    assert not distributed.gather(x).requires_grad
    assert distributed.gather_with_grad(x) is x
    assert distributed.longest(4, x.device) == 4
    assert distributed.total(4, x.device) == 4
    torch.testing.assert_close(distributed.mean_of(x[:, 0]), x[:, 0].mean())
    assert distributed.mean_of(x[:0, 0]) == 0


def test_padding_appends_zeros() -> None:
    x = torch.ones(2, 3, 4)
    padded = distributed.pad_second(x, 5)
    assert torch.equal(padded[:, :3], x)
    assert torch.equal(padded[:, 3:], torch.zeros(2, 2, 4))
    assert distributed.pad_second(x, 3) is x
    assert distributed.pad_second(torch.ones(2, 3, dtype=torch.int64), 4).tolist() == [[1, 1, 1, 0]] * 2
