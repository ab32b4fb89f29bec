"""The sections of settings that stages, servers and tools read, with the class that declares each; and their reading.

A section is ``[stages.<section>]`` in a profile and the part before the dot in overrides. A recipe's section has its
name and is declared in `schemas.recipes`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from infra.bounds import Bounded
from infra.errors import SettingError
from infra.settings import Settings
from infra.suggestions import meant, unknown
from schemas.recipes import RECIPES, with_preset
from schemas.stage_request import StageRequest
from schemas.stages import STAGES, Stage

T = TypeVar("T")


def _class_of(stage: Stage) -> str:
    return f"{stage.module}:{stage.name.title().replace('_', '')}Settings"


SECTIONS = {stage.name: _class_of(stage) for stage in STAGES.values() if stage.name in stage.sections} | {
    "review_lines": "pipelines.language.review_settings:ReviewLineSettings",
    "llm": "pipelines.language.ledger_settings:LedgerSettings",
    "download": "pipelines.tools.download:DownloadSettings",
    "review_sentiments": "ray_jobs.sentiment.settings:ReviewSentimentsSettings",
    "alignment": "ray_jobs.tokenizers.settings:AlignmentSettings",
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


def class_of(section: str) -> Any:
    """The class that declares a section; importing it loads no engine.

    Raises:
        ModuleNotFoundError: its module needs a package that is only installed where the section is read.
    """
    module, _, name = known()[section].partition(":")
    return getattr(import_module(module), name)


def refuse_unknown(names: Iterable[str], source: str) -> None:
    """Refuse settings of sections that nothing reads.

    Args:
        names: of sections.
        source: where they are, for the message.

    Raises:
        SettingError: such a section; with similar names.
    """
    there = known()
    for name in sorted(set(names) - there.keys()):
        raise SettingError(f"{source}: {unknown('section of settings', name, there, 'penchant settings')}")


def stage_settings(kind: type[T], settings: Settings, given: StageRequest | Mapping[str, Any] | None = None) -> T:
    """The settings of a section: a recipe's preset, overridden by the profile, overridden by the run.

    Args:
        kind: a keyword-only dataclass and subclass of `infra.bounds.Bounded`; its ``section`` is the name under
            ``[stages.*]`` and before the dot in overrides.
        given: the request of a stage, which must declare the section, or a tool's overrides by dotted name.

    Raises:
        SettingError: a section, preset or setting is unknown, or a value is of the wrong type or out of bounds.
    """
    assert issubclass(kind, Bounded)
    assert dataclasses.is_dataclass(kind)
    section, overrides = kind.section, given
    if given is not None and not isinstance(given, Mapping):
        given.require_section(section)
        overrides = given.overrides
    own = {}
    for dotted, value in (overrides or {}).items():
        name, _, setting = dotted.partition(".")
        if name == section:
            own[setting] = value
        else:
            refuse_unknown([name], "overrides")
    refuse_unknown(settings.stages.keys() - {section}, "profile or a variable PENCHANT_STAGES__*")
    values = {**settings.stages.get(section, {}), **own}
    if section in RECIPES:
        values = with_preset(section, values)
    names = {field.name for field in dataclasses.fields(kind)}
    for name in values:
        if name not in names:
            shown = f"{section}.{name[:80]}"
            raise SettingError(f"{shown} is no setting{meant(name, names)}; `penchant settings {section}` lists them")
    return kind(**values)


def settings_of(section: str, settings: Settings, given: StageRequest | Mapping[str, Any] | None = None) -> Any:
    """As `stage_settings`, by the section's name.

    Raises:
        ModuleNotFoundError: see `class_of`.
    """
    return stage_settings(class_of(section), settings, given)
