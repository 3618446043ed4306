"""The structure predictors."""

from snakefold.engines.base import Engine
from snakefold.engines.template import TemplateEngine

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (TemplateEngine(),)}
