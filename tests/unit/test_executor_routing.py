"""Queue table, routing and demands of the executor plugin."""

from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.demand import Demand, mib, of_group, of_job
from snakemake_executor_plugin_aws_batch_fleet.fleet import Queue, load_fleet, parse_mount
from snakemake_executor_plugin_aws_batch_fleet.routing import (
    Need,
    NoQueueFitsError,
    choose,
    cost_per_hour,
    next_gpu_memory,
)

QUEUES = [
    Queue(name="cpu-spot", vcpus=96, memory_mb=768_000, purchase="spot", price_per_hour=2.0),
    Queue(name="cpu", vcpus=96, memory_mb=768_000, purchase="on_demand", price_per_hour=6.0),
    Queue(
        name="gpu-spot", vcpus=8, memory_mb=31_000, gpus=1, gpu_memory_mb=24_000, purchase="spot", price_per_hour=0.1
    ),
    Queue(
        name="gpu", vcpus=8, memory_mb=31_000, gpus=1, gpu_memory_mb=24_000, purchase="on_demand", price_per_hour=1.0
    ),
    Queue(name="gpu-large", vcpus=8, memory_mb=62_000, gpus=1, gpu_memory_mb=48_000, price_per_hour=2.2),
]


def need(vcpus: int = 1, memory_mb: int = 1000, gpus: int = 0, gpu_memory_mb: int = 0) -> Need:
    return Need(vcpus=vcpus, memory_mb=memory_mb, gpus=gpus, gpu_memory_mb=gpu_memory_mb)


@pytest.mark.parametrize(
    ("asked", "queue"),
    [
        (need(), "cpu-spot"),
        (need(vcpus=4, gpus=1), "gpu-spot"),
        (need(gpus=1, gpu_memory_mb=24_001), "gpu-large"),
        (need(memory_mb=40_000, gpus=1), "gpu-large"),
    ],
)
def test_a_job_goes_to_the_cheapest_queue_that_fits(asked: Need, queue: str) -> None:
    assert choose(asked, QUEUES).name == queue


def test_a_job_without_gpu_takes_a_gpu_machine_only_when_nothing_else_fits() -> None:
    # gpu-spot costs 0.1 an hour, so that it would be the cheapest.
    assert choose(need(), QUEUES).name == "cpu-spot"
    assert choose(need(), QUEUES[2:]).name == "gpu-spot"


def test_purchase_narrows_the_choice() -> None:
    assert choose(need(), QUEUES, purchase="on_demand").name == "cpu"
    with pytest.raises(NoQueueFitsError, match="on_demand purchase"):
        choose(need(), QUEUES[:1], purchase="on_demand")


def test_cost_is_the_largest_share_of_the_machine() -> None:
    assert cost_per_hour(need(vcpus=48, memory_mb=1000), QUEUES[0]) == pytest.approx(1.0)
    assert cost_per_hour(need(vcpus=1, memory_mb=768_000), QUEUES[0]) == pytest.approx(2.0)
    assert cost_per_hour(need(gpus=1), QUEUES[3]) == pytest.approx(1.0)


def test_no_queue_fits_names_the_nearest_and_what_it_lacks() -> None:
    with pytest.raises(NoQueueFitsError) as caught:
        choose(need(vcpus=4, gpus=1, gpu_memory_mb=80_000), QUEUES)
    assert "the nearest queue is gpu-large, which lacks memory of one GPU: 80000 MB asked, 48000 MB there" in str(
        caught.value
    )


def test_a_forced_queue_is_taken_or_refused_with_the_reason() -> None:
    assert choose(need(), QUEUES, forced="gpu").name == "gpu"
    with pytest.raises(NoQueueFitsError, match="the fleet file lists cpu-spot"):
        choose(need(), QUEUES, forced="nowhere")
    with pytest.raises(NoQueueFitsError, match=r"forced by batch_queue, lacks GPUs: 1 asked, 0 there"):
        choose(need(gpus=1), QUEUES, forced="cpu")


def test_the_next_gpu_size_is_the_smallest_larger_one() -> None:
    assert next_gpu_memory(24_000, QUEUES) == 48_000
    assert next_gpu_memory(48_000, QUEUES) is None


def test_memory_is_asked_in_mebibytes_rounded_up() -> None:
    assert mib(1000) == 954
    demand = of_job(4, {"mem_mb": 64_000, "runtime": 30, "gpu": 1, "gpu_mem_mb": 20_000})
    assert demand.memory_mib == 61_036
    assert demand.need == need(4, 64_000, 1, 20_000)
    assert demand.minutes == 30


def test_a_container_has_room_for_snakemake_itself() -> None:
    assert of_job(1, {"mem_mb": 5}).memory_mib == mib(512)


def test_a_placeholder_of_snakemake_becomes_the_default() -> None:
    class TBDString(str): ...

    assert of_job(1, {"mem_mb": TBDString("<TBD>")}).need.memory_mb == 2048


def test_a_resource_of_the_wrong_kind_is_named() -> None:
    with pytest.raises(ValueError, match="resource mem_mb must be a number, not 'lots'"):
        of_job(1, {"mem_mb": "lots"})
    with pytest.raises(ValueError, match="gpu must not be negative"):
        of_job(1, {"gpu": -1})


def member(threads: int, memory_mb: int, runtime: int | None = 10, **more: Any) -> Demand:
    return of_job(threads, {"mem_mb": memory_mb, "runtime": runtime, **more})


def test_a_group_asks_for_what_can_run_at_once_in_its_cores() -> None:
    # 4 cores: the 4-thread member alone, or the two largest of 2 threads, or 1 + 1 + 2 threads.
    level = [member(4, 10_000), member(2, 9000), member(2, 8000), member(2, 1000), member(1, 5000)]
    group = of_group([level, [member(1, 12_000)]])
    assert group.need.vcpus == 4
    assert group.need.memory_mb == 17_000
    assert of_group([[member(1, 3000)] * 5]).need.memory_mb == 3000


def test_a_groups_time_counts_members_that_queue_for_its_cores() -> None:
    # Snakemake's own figure would be 10: it takes all five for parallel.
    assert of_group([[member(1, 100)] * 5]).minutes == 50
    assert of_group([[member(1, 100)], [member(1, 100, 20)]]).minutes == 30
    assert of_group([[member(1, 100)], [member(1, 100, None)]]).minutes is None


def test_a_group_that_disagrees_about_its_image_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in batch_image: a, b"):
        of_group([[member(1, 100, batch_image="a"), member(1, 100, batch_image="b")]])


def test_mounts_are_parsed_and_checked() -> None:
    assert parse_mount("/mnt/data:/data:ro") == ("/mnt/data", "/data", True)
    for wrong in ("/mnt", "data:/data", "/a:/b:rw"):
        with pytest.raises(ValueError, match="is not /host/path"):
            parse_mount(wrong)


FLEET = """
region: eu-west-1
bucket: b
queues:
  - {name: cpu, vcpus: 4, memory_mb: 8000, price_per_hour: 1}
"""


def test_a_fleet_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET)
    fleet = load_fleet(str(file))
    assert fleet.region == "eu-west-1"
    assert fleet.queue("cpu") is not None and fleet.queue("gpu") is None


def test_all_faults_of_a_fleet_file_are_told_one_line_each(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(
        FLEET.replace("vcpus: 4", "vcpus: none, colour: red") + "  - {name: gpu, vcpus: 1, memory_mb: 1, gpus: 1}\n"
    )
    with pytest.raises(WorkflowError) as caught:
        load_fleet(str(file))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any("queues[cpu].vcpus" in line for line in lines)
    assert any("queues[cpu].colour: unknown key" in line for line in lines)
    assert any("queues[gpu]: a queue with gpus needs gpu_memory_mb" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "words"), [(None, "No fleet file: name it with"), ("missing.yaml", "cannot be read (No such file")]
)
def test_a_missing_fleet_file_is_one_clear_line(path: str | None, words: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        load_fleet(path)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1
