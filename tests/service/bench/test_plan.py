"""The plan of an indexing run: its arithmetic against naive twins, its inputs, and the command."""

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.runtime.errors import InputError
from service.bench.inputs import PlanRequest, Source, make_plan
from service.bench.plan import (
    Demand,
    Fleet,
    GpuRates,
    Workload,
    evenly,
    machines_for,
    measure_demand,
    predict,
)
from service.bench.stage_rates import (
    DecodingRates,
    EncodingRates,
    PublishingRates,
    StageRates,
    WritingRates,
    read_rates,
)
from tests.support.command_line import check_error, invoke
from tests.support.paths import ROOT

RATES = StageRates(
    cores=2,
    bundle="toy",
    segment_seconds=32.0,
    frames_per_segment=16,
    core_seconds_per_file=0.05,
    start_seconds=0.5,
    start_core_seconds=0.4,
    efficiency=0.8,
    decoding={
        "240p": DecodingRates(
            core_seconds_per_second=0.004,
            picture_core_seconds_per_frame=0.001,
            cores_used=1.0,
            media_bytes_per_second=5e4,
            files=8,
            seconds=48,
        ),
        "1080p": DecodingRates(
            core_seconds_per_second=0.07,
            picture_core_seconds_per_frame=0.006,
            cores_used=2.5,
            media_bytes_per_second=1e6,
            files=2,
            seconds=40,
        ),
    },
    encoding=EncodingRates(
        provider="cpu", batch_frames=16, core_seconds_per_frame=0.02, elapsed_seconds_per_frame=0.01
    ),
    writing=WritingRates(
        core_seconds_per_segment=0.002, elapsed_seconds_per_segment=0.003, library_bytes_per_segment=2e5
    ),
    publishing=PublishingRates(
        elapsed_seconds=0.2,
        elapsed_seconds_per_segment=1e-5,
        elapsed_seconds_per_byte=1e-9,
        index_bytes_per_segment=1100,
        segments=5000,
    ),
)
WORK = [Workload("240p", 7, 100.0), Workload("1080p", 3, 32.0), Workload("240p", 4, 0.5)]


def naive_demand(rates: StageRates, workloads: list[Workload], gpu: GpuRates) -> dict[str, float]:
    """One file and one segment after the other."""
    total = dict.fromkeys(Demand.__dataclass_fields__, 0.0)
    total["index_seconds"] = rates.publishing.elapsed_seconds
    for workload in workloads:
        kind = rates.decoding[workload.kind]
        for _ in range(int(workload.files)):
            total["files"] += 1
            total["video_seconds"] += workload.seconds_each
            total["media_bytes"] += workload.seconds_each * kind.media_bytes_per_second
            total["decode_core_seconds"] += rates.core_seconds_per_file
            total["decode_process_seconds"] += rates.core_seconds_per_file
            if gpu.decoded_seconds_per_second is None:
                codec = workload.seconds_each * kind.core_seconds_per_second
                total["decode_core_seconds"] += codec
                total["decode_process_seconds"] += codec / kind.cores_used
            else:
                total["decode_gpu_seconds"] += workload.seconds_each / gpu.decoded_seconds_per_second
            start = 0.0
            while start < workload.seconds_each:
                start += rates.segment_seconds
                total["segments"] += 1
                total["write_core_seconds"] += rates.writing.core_seconds_per_segment
                total["write_seconds"] += rates.writing.elapsed_seconds_per_segment
                total["library_bytes"] += rates.writing.library_bytes_per_segment
                total["index_bytes"] += rates.publishing.index_bytes_per_segment
                total["index_seconds"] += rates.publishing.elapsed_seconds_per_segment
                total["checksum_seconds"] += (
                    rates.writing.library_bytes_per_segment * rates.publishing.elapsed_seconds_per_byte
                )
                for _ in range(rates.frames_per_segment):
                    total["frames"] += 1
                    total["decode_core_seconds"] += kind.picture_core_seconds_per_frame
                    total["decode_process_seconds"] += kind.picture_core_seconds_per_frame
                    if gpu.frames_per_second is not None:
                        total["encode_gpu_seconds"] += 1 / gpu.frames_per_second
                        continue
                    total["encode_core_seconds"] += rates.encoding.core_seconds_per_frame
                    if rates.encoding.provider != "cpu":
                        total["encode_gpu_seconds"] += rates.encoding.elapsed_seconds_per_frame
    return total


ON_GPU = RATES.model_copy(
    update={
        "encoding": EncodingRates(
            provider="cuda", batch_frames=128, core_seconds_per_frame=1e-4, elapsed_seconds_per_frame=2e-4
        )
    }
)


@pytest.mark.parametrize("rates", [RATES, ON_GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    "gpu", [GpuRates(), GpuRates(2000.0), GpuRates(None, 40.0), GpuRates(2000.0, 40.0)], ids=str
)
def test_the_demand_is_that_of_every_file_and_segment(rates: StageRates, gpu: GpuRates) -> None:
    found = measure_demand(rates, WORK, gpu)
    for name, value in naive_demand(rates, WORK, gpu).items():
        assert getattr(found, name) == pytest.approx(value), name


def queued(seconds_per_item: list[float], servers: list[int], items: int) -> float:
    """When the last item leaves a row of stages: each server takes the next item as soon as it is free."""
    ready = [0.0] * items
    for seconds, count in zip(seconds_per_item, servers, strict=True):
        free = [0.0] * count
        left = []
        for arrived in ready:
            server = int(np.argmin(free))
            free[server] = max(free[server], arrived) + seconds
            left.append(free[server])
        ready = sorted(left)
    return ready[-1]


@pytest.mark.parametrize(
    ("frames_per_second", "busiest"), [(5.0, "GPUs, encoding"), (5000.0, "decoding processes")]
)
def test_stages_that_work_at_once_take_as_long_as_the_busiest(frames_per_second: float, busiest: str) -> None:
    # So many cores that they are no limit: what is left are queues.
    rates = RATES.model_copy(update={"efficiency": 1.0, "core_seconds_per_file": 0.0})
    fleet = Fleet(machines=1, cores=1000, gpus=2, workers=3)
    demand = measure_demand(rates, [evenly("1080p", 20, 32 / 60)], GpuRates(frames_per_second))
    prediction = predict(rates, demand, fleet)
    assert prediction.bottleneck == busiest
    decode = 32 * 0.07 / 2.5 + 16 * 0.006
    write = rates.writing.elapsed_seconds_per_segment
    stages = [decode, 16 / frames_per_second, write]
    simulated = queued(stages, [fleet.workers, fleet.gpus, 1], round(demand.segments))
    assert prediction.working_seconds == pytest.approx(simulated, rel=0.01)


def test_a_run_takes_its_start_its_busiest_resource_and_its_publishing() -> None:
    demand = measure_demand(RATES, WORK)
    fleet = Fleet(machines=3, cores=4, gpus=0, workers=2, link_gbit=0.1)
    found = predict(RATES, demand, fleet)
    cores = (demand.decode_core_seconds + demand.encode_core_seconds + demand.write_core_seconds) / 12
    processes, writer = demand.decode_process_seconds / 6, demand.write_seconds / 3
    link = demand.media_bytes * 8 / (3 * 0.1e9)
    # So short a run reads all files for their checksums at its end.
    publishing = demand.index_seconds + demand.checksum_seconds
    assert found.busy_seconds == pytest.approx(
        {"cores": cores, "decoding processes": processes, "writer": writer, "reading media": link}
    )
    assert list(found.busy_seconds.values()) == sorted(found.busy_seconds.values(), reverse=True)
    assert found.seconds == pytest.approx(0.5 + max(cores, processes, writer, link) / 0.8 + publishing)
    assert found.machine_seconds == pytest.approx(3 * found.seconds)


def test_a_long_run_leaves_only_the_checksums_of_its_last_minutes_to_the_end() -> None:
    demand = measure_demand(RATES, [evenly("1080p", 10_000, 10)])
    found = predict(RATES, demand, Fleet(1, 16, 0, 15))
    busy = max(found.busy_seconds.values())
    at_end = found.publish_seconds - demand.index_seconds
    before = found.busy_seconds["writer"] - demand.write_seconds
    assert at_end + before == pytest.approx(demand.checksum_seconds)
    assert at_end == pytest.approx(demand.checksum_seconds * 300 / busy)


@pytest.mark.parametrize("hours", [0.2, 1.0, 7.0])
def test_as_few_machines_are_used_as_are_enough(hours: float) -> None:
    demand = measure_demand(RATES, [evenly("1080p", 500, 10)])
    fleet = Fleet(1, 2, 0, 1)
    found = machines_for(RATES, demand, fleet, hours * 3600)
    naive = 1
    while predict(RATES, demand, replace(fleet, machines=naive)).seconds > hours * 3600:
        naive += 1
    assert found.fleet.machines == naive
    with pytest.raises(InputError, match=r"no number of machines .* takes 0\.0"):
        machines_for(RATES, demand, fleet, 0.6)


def test_every_input_says_where_it_comes_from() -> None:
    request = PlanRequest(hours=1000, kind="1080p", minutes_each=20, gpus=1, gpu=GpuRates(3000.0, 50.0))
    plan = make_plan(RATES, replace(request, machines=2, cores=8, machine_price=3.0, storage_price=0.1))
    sources = {each.name: each.source for each in plan.inputs}
    assert sources["price of a machine for an hour"] == Source.GIVEN
    assert sources["decoding by a GPU"] in (Source.GIVEN, Source.ASSUMED)
    assert sources["scaling a frame, and its thumbnail"] == Source.MEASURED
    assert "decoding a second of video" not in sources  # the cores do not
    assert sources["decoding processes of a machine"] == Source.ASSUMED
    assert plan.cost == pytest.approx(plan.prediction.machine_seconds / 3600 * 3.0)
    demand = plan.prediction.demand
    assert plan.monthly_cost == pytest.approx((demand.library_bytes + demand.index_bytes) / 1e9 * 0.1)
    plain = make_plan(RATES, PlanRequest(hours=1))
    assert plain.cost is None
    slower = make_plan(RATES, PlanRequest(hours=1, efficiency=0.4))
    assert slower.prediction.working_seconds == pytest.approx(2 * plain.prediction.working_seconds)
    assert [each.source for each in slower.inputs if "efficiency" in each.name] == [Source.GIVEN]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (PlanRequest(hours=1, kind="4K"), "'4K' were not measured: choose one of '240p', '1080p'"),
        (PlanRequest(hours=1, gpus=1), "--gpu-frames-per-second"),
        (PlanRequest(hours=1, machines=1, within_hours=2), "leave out --machines or --within"),
        (PlanRequest(hours=1, gpu=GpuRates(100.0)), "gpus is 0"),
    ],
)
def test_a_plan_that_cannot_be_made_says_what_lacks(request_: PlanRequest, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_plan(RATES, request_)


def test_rates_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"figures": [], "rates": RATES.to_json()}))
    assert read_rates(path) == RATES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "has no 'rates'"),
        (json.dumps({"rates": {**RATES.to_json(), "efficiency": 2}}), r"rates\.efficiency: .*less than"),
        (json.dumps({"rates": {**RATES.to_json(), "more": 2}}), r"rates\.more: "),
        (json.dumps({"rates": {**RATES.to_json(), "start_seconds": math.inf}}), r"rates\.start_seconds"),
    ],
)
def test_a_file_without_rates_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "rates.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"(?s){said}.*bench --only stages --json"):
        read_rates(path)


def test_the_command_prints_inputs_resources_and_the_bottleneck(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"rates": RATES.to_json()}))
    common = ["bench", "plan", "--rates", str(path), "--hours", "1000"]
    shown = invoke(*common, "--machine-price", "2").output
    for text in ("measured", "given", "assumed", "bottleneck: cores", "cost: ", "÷ (1 machine × 2 cores)"):
        assert text in shown, text
    body = json.loads(invoke(*common, "--json", "--within", "1").stdout)
    assert body["plan"]["hours"] <= 24 < body["plan"]["machine_hours"]
    assert body["rates"] == RATES.to_json()
    again = tmp_path / "again.json"
    again.write_text(json.dumps(body))
    assert read_rates(again) == RATES
    check_error(invoke(*common, "--clips", str(tmp_path)), 2, "leave them out, or --rates")
    check_error(invoke("bench", "--quick", *common[1:]), 2, "--quick stands before 'plan'")
    check_error(invoke(*common, "--gpus", "1"), 2, "--gpus is 1")


def test_the_document_has_the_figures_that_its_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "deploy/scale.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^reelfind (bench plan .*HOURS.*)$", text, re.MULTILINE)
    # Hours, machines, (days), machine hours, cost, (bytes and a price), bottleneck.
    row = r"^\| ([\d,]+) \| ([\d,]+) \| [\d.]+ \| ([\d,.]+) \| ([\d,]+) \|.*\| ([a-z ]+) \|$"
    rows = re.findall(row, text, re.MULTILINE)
    assert len(rows) == 4
    for hours, *told, bottleneck in rows:
        arguments = shlex.split(command.replace("HOURS", hours.replace(",", "")))
        plan = json.loads(invoke(*arguments, "--json").stdout)["plan"]
        printed = [plan["machines"], plan["machine_hours"], plan["cost"]]
        assert [float(each.replace(",", "")) for each in told] == pytest.approx(printed, rel=2e-2)
        assert bottleneck == plan["bottleneck"]
