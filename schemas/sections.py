"""The sections of settings that stages, servers and tools read, with the class that declares each.

A section is ``[stages.<section>]`` in a profile and the part before the dot in overrides. A recipe's section has its
name and is declared in `schemas.recipes`.
"""

from schemas.recipes import RECIPES
from schemas.stages import STAGES, Stage


def _class_of(stage: Stage) -> str:
    return f"{stage.module}:{stage.name.title().replace('_', '')}Settings"


SECTIONS = {stage.name: _class_of(stage) for stage in STAGES.values() if stage.name in stage.sections} | {
    "review_lines": "pipelines.language.review_settings:ReviewLineSettings",
    "llm": "pipelines.language.ledger_settings:LedgerSettings",
    "download": "pipelines.tools.download:DownloadSettings",
    "review_sentiments": "ray_jobs.sentiment.settings:ReviewSentimentsSettings",
    "training_data": "ray_jobs.data.settings:TrainingDataSettings",
    "steering": "ray_jobs.steering.settings:SteeringSettings",
    "promotion": "ray_jobs.registry.settings:PromotionSettings",
    "tune_denoiser": "ray_jobs.denoiser.settings:DenoiserSettings",
    "clean_up": "ray_jobs.retention.settings:CleanUpSettings",
    "serving": "ray_jobs.serving.settings:ServingSettings",
    "page": "ray_jobs.serving.page.settings:PageSettings",
}
"""``module:class`` by section. A stage's section of the same name is declared in its entry point, by a class such as
``ItemVectorsSettings``; those of several stages, or declared elsewhere, are listed. Importing one loads no engine."""


def known() -> dict[str, str]:
    """``module:class`` by section, also of recipes."""
    return SECTIONS | {name: f"ray_jobs.recipes.{recipe.settings}" for name, recipe in RECIPES.items()}
