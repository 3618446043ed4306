"""Comparative modelling from the best templates."""

from pathlib import Path

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.outcome import Outcome


class TemplateEngine:
    """Comparative modelling on the CPU: no weights, no GPU; a target without a template is skipped, with the reason."""

    name = "template"
    version = "2"
    packages: tuple[str, ...] = ("openmm", "pyhmmer")
    licence = "Apache-2.0"
    weights: str | None = None
    needs_msa = True
    needs_templates = True
    takes_template = True
    gpus = 0
    limits = Limits(min_length=20, max_length=3000, max_chains=26, letters=STANDARD_LETTERS | frozenset("XU"))

    def reads_templates(self, chains: int) -> bool:  # noqa: ARG002
        """Of all."""
        return True

    def seconds(self, residues: int) -> float:
        """Estimated seconds for one target of so many residues, on one core."""
        return 4 + 0.02 * residues

    def memory_mb(self, residues: int) -> int:
        """Estimated peak memory in MB for one target of so many residues."""
        return 300 + residues // 3

    def gpu_memory_mb(self, residues: int) -> int:  # noqa: ARG002
        """None: it computes on the CPU."""
        return 0

    def predict(self, task: FoldTask, folder: Path) -> Outcome:
        """Model one target on its best templates."""
        from snakefold.engines.template.model import predict

        return predict(task, folder)
