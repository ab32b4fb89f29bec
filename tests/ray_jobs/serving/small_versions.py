"""Versions whose answers give them away, in a registry of a dict."""

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.bundle import Bundle


def bundle_of(version: int, items: int = 12) -> Bundle:
    """Scores are above `version` thousand, titles name the version."""
    names = tuple(f"i{n}" for n in range(items))
    model = Popularity(PopularitySettings(), Catalogue(names, tuple(f"{name} of v{version}" for name in names), names))
    model.counts[:] = model.counts.new_tensor([1000 * version + n for n in range(items)])
    return Bundle(model.eval(), {})


class FakeRegistry:
    def __init__(self, newest: int = 1):
        self.bundles = {f"m/{n}": bundle_of(n) for n in (1, 2, 3)}
        self.alias: str | Exception = f"m/{newest}"
        self.loads: list[str] = []

    def newest(self):
        if isinstance(self.alias, Exception):
            raise self.alias
        return self.alias

    def load(self, version):
        self.loads.append(version)
        found = self.bundles[version]
        if isinstance(found, Exception):
            raise found
        return found
