"""A generated shop with known tastes, noise and drift, in the format of the Amazon 2023 release, and its truth.

Stages are checked against the truth: which positions are noise, what each user likes and dislikes in each phase, and
which attributes each review names. Needs only the standard library; the same settings give the same bytes.
"""

from pipelines.landing.planted_world.files import write_world
from pipelines.landing.planted_world.world import World, WorldSettings, grow_world

__all__ = ["World", "WorldSettings", "grow_world", "write_world"]
