"""The record of a failed task, for the alert about its run and for the day's report."""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePath

from infra.errors import UserError
from schemas.addresses import damaged, read_text, write_text


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failed task.

    Args:
        message: its error.
        page: URL of its log in Airflow.
    """

    task_id: str
    message: str
    page: str


def write_failure(uri: str, failure: Failure) -> None:
    """Write `failure` at `uri`."""
    write_text(uri, json.dumps(asdict(failure)))


def read_failure(uri: str) -> Failure | None:
    """The failure at `uri`, or None."""
    try:
        text = read_text(uri)
        return None if text is None else Failure(**json.loads(text))
    except (UserError, ValueError, TypeError) as error:
        # An alert about a damaged record is better than none.
        return Failure(task_id=PurePath(uri).stem, message=str(damaged(uri, error)), page="")
