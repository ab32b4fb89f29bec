"""Ingest: landing files of a day into `reviews`, `items` and `events`, and every refused line into `quarantine`.

No line is lost: rows read = ingested + quarantined + duplicates + those of erased users, and the lines of the files,
counted independently, are those of the rows (a quoted text may have several), headers and blank lines. A wrong sum
fails the gate. Rows of erased users are only counted.
"""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, Count, CountOrZero, Share
from infra.errors import SettingError
from infra.settings import load_settings
from schemas.handoff import StageReport
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STAGE = "ingest"
UNKNOWN_ITEM = "unknown_item"
"""Reason of a review or event that is refused because its item has no metadata."""
MAX_TEXT_CHARS = 32_768


@dataclass(frozen=True, kw_only=True)
class LandingRules:
    """What a review or event must satisfy.

    Args:
        earliest, latest: days of its time, both included.
        rated: whether a review must have a rating.
        max_text_chars: longer texts are cut.
    """

    earliest: dt.date
    latest: dt.date
    rated: bool = True
    max_text_chars: int = MAX_TEXT_CHARS


@dataclass(frozen=True, kw_only=True)
class IngestSettings(Bounded):
    """What ingest accepts.

    Args:
        max_line_bytes: longer lines are quarantined.
        max_text_chars: longer titles, texts and descriptions are cut before anything reads them, and counted as
            ``texts_cut``; shops allow about 30,000 characters.
        earliest, latest: days between which reviews were written, ISO format.
        days_after_partition: reviews of later than the partition's day plus this many days are refused; for feeds that
            deliver each day's reviews. Leave it unset for a file of many years.
        description_words: words of an item's description that go into its text.
        max_refused_share: the gate stops the run where a larger share of a file's rows is refused.
        empty_day: on a day without any line of reviews, ``fail`` stops the run; ``accept`` records the day as empty,
            and later stages see the data of the day before.
    """

    section: ClassVar[str] = STAGE

    max_line_bytes: Count = 524_288
    max_text_chars: Count = MAX_TEXT_CHARS
    earliest: str = "1995-01-01"
    latest: str = "2099-12-31"
    days_after_partition: CountOrZero | None = None
    description_words: CountOrZero = 60
    max_refused_share: Share = 0.2
    empty_day: Literal["fail", "accept"] = "fail"

    def rules(self, partition: dt.date, rated: bool = True) -> LandingRules:
        """The rules for the landing files of a partition.

        Raises:
            SettingError: a day cannot be read.
        """
        days = {}
        for name in ("earliest", "latest"):
            try:
                days[name] = dt.date.fromisoformat(getattr(self, name))
            except ValueError as error:
                raise SettingError(f"ingest.{name} is {getattr(self, name)!r}, no day such as 2026-01-31") from error
        if self.days_after_partition is not None:
            days["latest"] = min(days["latest"], partition + dt.timedelta(days=self.days_after_partition))
        return LandingRules(**days, rated=rated, max_text_chars=self.max_text_chars)


def work(request: StageRequest) -> StageReport:
    """Run `pipelines.ingest` where something changed; no engine is loaded else."""
    settings = load_settings()
    ours = stage_settings(IngestSettings, settings, request)
    ours.rules(request.partition_date())
    from pipelines.ingested import IngestedDay

    return IngestedDay(settings, request, asdict(ours)).report_or(_ingested)


def _ingested(request: StageRequest) -> StageReport:
    from pipelines.ingest import run

    return run(request)
