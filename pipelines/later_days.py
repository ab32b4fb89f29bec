"""A day that arrives after later ones: the tables of those are updated in the same run.

The tables of a day hold what was known on that day, so an older day that is filled in late changes those after it. The
result is the same as if the days had come in order. Answers of the language model come from its ledger, and a day whose
content does not change gets no new table version.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

from infra.settings import Settings, load_settings
from pipelines.stages.ingest import UNKNOWN_ITEM
from schemas.handoff import Handoff, StageReport
from schemas.stage_request import StageRequest
from schemas.stages import STAGES

INGEST = "ingest"

Work = Callable[[StageRequest], StageReport]


def with_later_days(stage: str, work: Work) -> Work:
    """Run `work` for a request's day, and then for each later day that depends on it.

    The report is that of the request's day. Its hand-offs name the table versions that contain the later days, too, and
    ``later_days`` counts those days, if any.
    """
    if stage != INGEST and not STAGES[stage].snapshot:
        return work

    def run(request: StageRequest) -> StageReport:
        report = work(request)
        if report.status == "dry_run":
            return report
        days = later_days(load_settings(), request, stage)
        handoffs, counts = dict(report.handoffs), dict(report.counts)
        for day in days:
            inputs = {name: _of_day(handoff, day) for name, handoff in request.inputs.items()}
            again = work(replace(request, partition=day.isoformat(), inputs=inputs, report_uri=""))
            for name in handoffs.keys() & again.handoffs.keys():
                handoffs[name] = replace(handoffs[name], version=again.handoffs[name].version)
            if "llm_calls" in counts:
                counts["llm_calls"] += again.counts.get("llm_calls", 0)
        if days:
            counts["later_days"] = len(days)
        return replace(report, handoffs=handoffs, counts=counts)

    return run


def _of_day(handoff: Handoff, day: dt.date) -> Handoff:
    """`handoff` with the number of rows of `day`, where its table is partitioned by day alone."""
    from pipelines.stored import stored_rows
    from schemas.delta import partition_filter
    from schemas.tables import TABLES

    if TABLES[handoff.table].partition_by != ("partition_date",):
        return handoff
    rows = stored_rows(handoff.uri, handoff.version).count_rows(filter=partition_filter({"partition_date": day}))
    return replace(handoff, rows=rows)


def later_days(settings: Settings, request: StageRequest, stage: str) -> list[dt.date]:
    """Days after the request's that `stage` must process again, oldest first.

    For ingest these are the days that refused rows of items unknown then; for another stage, all days in the table of
    its name.

    Raises:
        DataError: the quarantine or that table is damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipelines.stored import stored_rows
    from schemas.damaged_files import damage_named
    from schemas.delta import partition_filter
    from schemas.quarantine import QUARANTINE
    from schemas.table_seal import check_files, check_log, newest_version

    uri = settings.table_uri(request.dataset, QUARANTINE.name if stage == INGEST else stage)
    check_log(uri)
    if newest_version(uri) < 0:
        return []
    later = pc.field("partition_date") > pa.scalar(request.partition_date())
    if stage == INGEST:
        later &= partition_filter({"stage": INGEST, "reason": UNKNOWN_ITEM})
    rows = stored_rows(uri)
    check_files(uri, [one.path for one in rows.get_fragments(later)])
    with damage_named(uri, lambda: rows.files):
        days = rows.to_table(columns=["partition_date"], filter=later)["partition_date"]
    return sorted(days.unique().to_pylist())
