"""The structure predictors."""

from collections.abc import Mapping

from snakefold.engines.alphafold2 import AlphaFold2
from snakefold.engines.base import OwnEngine
from snakefold.engines.boltz import Boltz
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.esmfold import EsmFold
from snakefold.engines.omegafold import OmegaFold
from snakefold.engines.rosettafold import RoseTTAFold
from snakefold.engines.template import TemplateEngine

AnyEngine = OwnEngine | DrivenEngine

ENGINES: dict[str, AnyEngine] = {
    engine.name: engine for engine in (TemplateEngine(), EsmFold(), OmegaFold(), AlphaFold2(), RoseTTAFold(), Boltz())
}


def engines_for(gpu_memory_mb: int) -> Mapping[str, AnyEngine]:
    """All engines, with the lengths that they accept on GPUs of so much memory (MB)."""
    return {
        name: engine.on_gpu(gpu_memory_mb) if isinstance(engine, DrivenEngine) else engine
        for name, engine in ENGINES.items()
    }
