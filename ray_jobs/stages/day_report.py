"""Report a day: what changed, what it cost, how good data and model are, and what was decided.

Reads the report of each task of the day and writes one MLflow run per day with ``report.html``, plots and every number.
A rerun updates the same run. A day that failed or was skipped gets a page, too.
"""

STAGE = "day_report"
