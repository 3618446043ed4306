"""The structure predictors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from snakefold.engines.alphafold2 import AlphaFold2
from snakefold.engines.base import OwnEngine
from snakefold.engines.boltz import Boltz, Boltz2
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.esmfold import EsmFold
from snakefold.engines.omegafold import OmegaFold
from snakefold.engines.openfold import OpenFold
from snakefold.engines.rosettafold import RoseTTAFold
from snakefold.engines.template import TemplateEngine

if TYPE_CHECKING:
    from snakefold.config import Config

AnyEngine = OwnEngine | DrivenEngine

ENGINES: dict[str, AnyEngine] = {
    engine.name: engine
    for engine in (TemplateEngine(), EsmFold(), OmegaFold(), AlphaFold2(), RoseTTAFold(), Boltz(), Boltz2(), OpenFold())
}


def engines_for(config: Config) -> Mapping[str, AnyEngine]:
    """All engines as they are in a run: what they need by their parameters, and accept on the largest GPU there is."""
    return {
        name: engine.fitted(config.plan.gpu_memory_mb, config.parameters_of_engine(name))
        if isinstance(engine, DrivenEngine)
        else engine
        for name, engine in ENGINES.items()
    }
