"""Measure models on the preference benchmark and record in the registry how steerable each is.

Measures registered versions, or a newly trained model and the champion that it is compared with. Per-sample rows go to
the table ``preference_evaluations``, one partition per day and model. Each model gets an MLflow run with a table and a
plot per axis, a page with examples and the numbers, and tags in the registry; those of a model that is not registered
yet are set on its training run.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Bounded, Count, Seed

STAGE = "steerability"


@dataclass(frozen=True, kw_only=True)
class SteerabilitySettings(Bounded):
    """Settings of the stage.

    Args:
        models: versions, ``<name>/<version>`` or ``<name>@<alias>``; if empty, what earlier tasks named or trained,
            else the data set's champion.
        splits: of the benchmark.
        exclude_seen: exclude items of the history. The paper ranks all items.
        probe_users: users that are steered towards each property.
        seed: of the choice of these users.
    """

    section: ClassVar[str] = STAGE

    models: tuple[str, ...] = ()
    splits: Annotated[tuple[Literal["valid", "test"], ...], Field(min_length=1)] = ("test",)
    exclude_seen: bool = False
    probe_users: Count = 20
    seed: Seed = 0
