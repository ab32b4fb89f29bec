"""Ingest: landing files of a day into `reviews`, `items` and `events`, and every refused line into `quarantine`.

Nothing is lost. Rows read = ingested + quarantined + duplicates + those of erased users, and the lines of the files,
counted apart from them, are those of the rows (a quoted text may have several), headers and blank lines: a sum that is
off fails the gate. Rows of users who asked to be forgotten are counted and go nowhere.
"""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, Count, Share
from infra.errors import SettingError
from infra.settings import load_settings, stage_settings
from pipelines.review_rules import MAX_TEXT_CHARS, ReviewRules
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

STAGE = "ingest"


@dataclass(frozen=True, kw_only=True)
class IngestSettings(Bounded):
    """What ingest accepts.

    Args:
        max_line_bytes: longer lines are quarantined.
        max_text_chars: longer titles, texts and descriptions are cut before anything reads them, and counted as
            ``texts_cut``; shops allow some 30,000 characters.
        earliest, latest: days between which reviews were written, ISO format.
        days_after_partition: where set, a review later than the partition's day by more than so many days is
            refused; for feeds that bring each day's reviews. A file of many years needs none.
        description_words: how much of an item's description goes into its text.
        max_refused_share: when a larger share of a file's rows is refused, the gate stops the run.
        empty_day: what a day without a single line of reviews is: ``fail`` (the gate stops it), or ``accept`` (it is
            recorded as empty, and later stages see what they saw the day before).
    """

    section: ClassVar[str] = STAGE

    max_line_bytes: int = 524_288
    max_text_chars: Count = MAX_TEXT_CHARS
    earliest: str = "1995-01-01"
    latest: str = "2099-12-31"
    days_after_partition: int | None = None
    description_words: int = 60
    max_refused_share: Share = 0.2
    empty_day: Literal["fail", "accept"] = "fail"

    def rules(self, partition: dt.date) -> ReviewRules:
        """The rules for reviews of a partition.

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
        return ReviewRules(earliest=days["earliest"], latest=days["latest"], max_text_chars=self.max_text_chars)


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `pipelines.ingest`, where something changed."""
    settings = load_settings()
    ours = stage_settings(IngestSettings, settings, request)
    ours.rules(request.partition_date())
    from pipelines.ingested import IngestedDay

    day = IngestedDay(settings, request, asdict(ours))
    reads = day.reads()
    report = day.report(reads)
    if report is None:
        from pipelines.ingest import run as work

        report = work(request)
        day.keep(reads, report)
    return report


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
