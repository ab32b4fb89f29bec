"""What a task that failed for good leaves behind, for the alert about its run and for the day's report."""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePath

from infra.errors import UserError
from schemas.addresses import damaged, read_text, write_text


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failed task.

    Args:
        message: what the task said, for people.
        page: address of its log in Airflow.
    """

    task_id: str
    message: str
    page: str


def write_failure(uri: str, failure: Failure) -> None:
    """Leave `failure` at `uri`."""
    write_text(uri, json.dumps(asdict(failure)))


def read_failure(uri: str) -> Failure | None:
    """The failure at `uri`, or None."""
    try:
        text = read_text(uri)
        return None if text is None else Failure(**json.loads(text))
    except (UserError, ValueError, TypeError) as error:
        # Others read it, to tell of it: what is known without the file is enough for that.
        return Failure(task_id=PurePath(uri).stem, message=str(damaged(uri, error)), page="")
