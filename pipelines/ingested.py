"""The inputs of an ingest: a day that has the same ones again is skipped, see `pipelines.finished`.

They are landing files, settings, registration, code and libraries, the list of erased users, and the items of earlier
days where each day delivers its own. Landing files at an address are not read here, so their days are always ingested.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from pipelines.finished import FinishedDay, digest_of_inputs
from pipelines.landing.text_files import landing_path, parts
from pipelines.stored import files_of
from schemas.dataset import Dataset
from schemas.digests import digest_of_content
from schemas.erasures import ERASURES
from schemas.items import ITEMS
from schemas.table import Table
from schemas.table_seal import newest_version


@dataclass(frozen=True)
class IngestedDay(FinishedDay):
    """A day to ingest, with the settings of the stage in `chosen`."""

    chosen: Mapping[str, Any]

    def reads(self) -> str | None:
        """A digest of everything that determines the result of an ingest; None where it cannot be computed.

        Raises:
            DataError: a landing file does not exist.
        """
        dataset = Dataset.find(self.settings.datasets_dir(), self.request.dataset)
        if dataset is None:
            return None
        landed = {}
        for pattern in filter(None, (dataset.reviews, dataset.items, dataset.events)):
            path = landing_path(pattern, self.request.partition, dataset.name)
            if "://" in path:
                return None
            try:
                files = [str(file) for file in parts(Path(path))]
                landed[path] = [(file, digest_of_content(fs.LocalFileSystem(), file)) for file in files]
            except OSError:
                return None  # the reader will raise a clear error
        before = pc.field("partition_date") < pa.scalar(self.request.partition_date())
        return digest_of_inputs(
            {
                "landed": landed,
                "registration": asdict(dataset),
                "settings": dict(self.chosen),
                "day": [self.request.partition, self.request.generation],
                "erasures": self._stored(ERASURES),
                "items": self._stored(ITEMS, before) if "{partition}" in (dataset.items or "") else [],
            }
        )

    def _stored(self, table: Table, where: pc.Expression | None = None) -> list[str]:
        uri = self.uri(table)
        return files_of(uri, where) if newest_version(uri) >= 0 else []
