"""A small shop with planted tastes, noise and drift, in the Amazon 2023 release's format, its truth beside it.

Later stages are checked against the truth: which positions are noise, what each user likes and dislikes in which
phase, and which attributes each review names. Standard library only, the same bytes for the same settings.
"""

from pipelines.landing.planted_world.files import write_world
from pipelines.landing.planted_world.world import World, WorldSettings, grow_world

__all__ = ["World", "WorldSettings", "grow_world", "write_world"]
