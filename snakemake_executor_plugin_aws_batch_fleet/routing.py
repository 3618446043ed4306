"""Which queue a job goes to: the cheapest that fits."""

from collections.abc import Iterable
from dataclasses import dataclass

from snakemake_executor_plugin_aws_batch_fleet.fleet import Queue


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job needs of a machine. Memory in MB (10**6 bytes), GPU memory in MB of one GPU."""

    vcpus: int
    memory_mb: int
    gpus: int = 0
    gpu_memory_mb: int = 0

    def __str__(self) -> str:
        text = f"{self.vcpus} vCPU, {self.memory_mb} MB"
        if self.gpus:
            text += f", {self.gpus} GPU" + (f" of {self.gpu_memory_mb} MB" if self.gpu_memory_mb else "")
        return text


class NoQueueFitsError(Exception):
    """No queue can run the job; the message says which comes nearest and what it lacks."""


def share(need: Need, queue: Queue) -> float:
    """The part of the queue's largest machine that a job takes: the largest of its shares of vCPU, memory and GPUs."""
    shares = [need.vcpus / queue.vcpus, need.memory_mb / queue.memory_mb]
    if queue.gpus:
        shares.append(need.gpus / queue.gpus)
    return max(shares)


def cost_per_hour(need: Need, queue: Queue) -> float:
    """USD an hour for a job in a queue."""
    return queue.price_per_hour * share(need, queue)


def lacks(need: Need, queue: Queue) -> list[str]:
    """What a queue is short of for a job, in words; empty when it fits."""
    faults = []
    if need.vcpus > queue.vcpus:
        faults.append(f"vCPU: {need.vcpus} asked, {queue.vcpus} there")
    if need.memory_mb > queue.memory_mb:
        faults.append(f"memory: {need.memory_mb} MB asked, {queue.memory_mb} MB there")
    if need.gpus > queue.gpus:
        faults.append(f"GPUs: {need.gpus} asked, {queue.gpus} there")
    elif need.gpus and need.gpu_memory_mb > queue.gpu_memory_mb:
        faults.append(f"memory of one GPU: {need.gpu_memory_mb} MB asked, {queue.gpu_memory_mb} MB there")
    return faults


def choose(need: Need, queues: Iterable[Queue], *, forced: str | None = None, purchase: str | None = None) -> Queue:
    """The cheapest queue that fits, of one way of purchase if that is given.

    A job without GPU goes to a machine with GPUs only when nothing else fits. Raises NoQueueFitsError.
    """
    table = list(queues)
    if forced is not None:
        queue = next((queue for queue in table if queue.name == forced), None)
        if queue is None:
            names = ", ".join(queue.name for queue in table)
            raise NoQueueFitsError(f"resource batch_queue is {forced}, but the fleet file lists {names}")
        if faults := lacks(need, queue):
            raise NoQueueFitsError(
                f"it asks for {need}; queue {forced}, forced by batch_queue, lacks {'; '.join(faults)}"
            )
        return queue
    fitting = [q for q in table if not lacks(need, q) and purchase in (None, q.purchase)]
    if fitting:
        return min(
            fitting,
            key=lambda q: (bool(q.gpus) and not need.gpus, cost_per_hour(need, q), q.purchase != "spot", q.name),
        )
    nearest = min(table, key=lambda q: (_distance(need, q), q.name))
    faults = lacks(need, nearest) or [f"{purchase} purchase"]
    raise NoQueueFitsError(
        f"it asks for {need}; the nearest queue is {nearest.name}, which lacks {'; '.join(faults)}. "
        "Lower the rule's resources, or add a queue to the fleet file"
    )


def next_gpu_memory(gpu_memory_mb: int, queues: Iterable[Queue]) -> int | None:
    """The next larger GPU memory (MB) that any queue has."""
    return min((q.gpu_memory_mb for q in queues if q.gpus and q.gpu_memory_mb > gpu_memory_mb), default=None)


def _distance(need: Need, queue: Queue) -> tuple[int, float]:
    """Number of things lacking, and by how many times the worst is exceeded."""
    pairs = [(need.vcpus, queue.vcpus), (need.memory_mb, queue.memory_mb), (need.gpus, queue.gpus)]
    if need.gpus:
        pairs.append((need.gpu_memory_mb, queue.gpu_memory_mb))
    excess = [asked / there if there else float("inf") for asked, there in pairs if asked > there]
    return len(excess), max(excess, default=0.0)
