"""Write a planted world: ``penchant planted-world --out DIR --users 400 --items 160``."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.commands.terminal import command
from pipelines.landing.planted_world.files import write_world
from pipelines.landing.planted_world.world import WorldSettings, grow_world


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, grow the world and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the landing files and the truth")
    for field in dataclasses.fields(WorldSettings):
        default: int | float = field.default  # type: ignore[assignment]
        parser.add_argument(f"--{field.name}", type=type(default), default=default, help="see WorldSettings")
    given = vars(parser.parse_args(argv))
    folder = given.pop("out")
    world = grow_world(WorldSettings(**given))
    reviews, items = write_world(world, folder)
    sys.stdout.write(
        f"{len(world.positions)} reviews of {len(world.items)} items by {len(world.users)} users, "
        f"{sum(p.is_noise for p in world.positions)} of them noise\nreviews {reviews}\nitems   {items}\n"
        f"truth   {folder / 'truth'}\n"
    )


if __name__ == "__main__":
    main()
