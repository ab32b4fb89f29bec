"""The work of `ray_jobs.stages.recommendations`: score batches of users with the registered version on actors."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import mlflow
import pyarrow as pa
import pyarrow.compute as pc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from infra.progress import Progress
from infra.settings import load_settings
from ray_jobs.actors import through
from ray_jobs.data.day_states import input_rows
from ray_jobs.data.example_tables import arrow_type
from ray_jobs.data.waiting_rows import publish_parts
from ray_jobs.registry import runs
from ray_jobs.registry.users import USERS_AT_ONCE, User, user_columns, user_parts
from ray_jobs.registry.versions import load_version, resolve
from ray_jobs.stages.recommendations import STAGE, RecommendationsSettings
from schemas.columns import COLUMNS, HISTORY
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.recommendations import RECOMMENDATIONS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


class Scorer:
    """An actor that holds the model and scores batches of users."""

    def __init__(self, tracking_uri: str, version: str, k: int, exclude_seen: bool, where: str) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        self._bundle = load_version(resolve(MlflowClient(tracking_uri, tracking_uri), version))
        self._k, self._exclude_seen, self._where = k, exclude_seen, where

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the rows of `batch`, as `batches` builds them."""
        given = {name: batch.column(name).to_pylist() for name in batch.column_names if name != "user_id"}
        history = given.pop(HISTORY)
        given["where"] = [self._where] * len(history)
        answers = self._bundle.recommend(history, [None] * len(history), self._k, self._exclude_seen, **given)
        return pa.table(
            {
                "user_id": batch.column("user_id"),
                "item_ids": pa.array([[item for item, _ in row] for row in answers], pa.list_(pa.string())),
                "scores": pa.array([[score for _, score in row] for row in answers], pa.list_(pa.float32())),
                "preference": batch.column("known"),
            }
        )


def batches(users: Sequence[User], size: int) -> Iterator[pa.Table]:
    """Users in order as tables of `size` rows, the last one shorter."""
    for start in range(0, len(users), size):
        part = users[start : start + size]
        given = {HISTORY: [user.history for user in part], **user_columns(part)}
        yield pa.table(
            {
                "user_id": pa.array([user.user_id for user in part], pa.string()),
                **{name: pa.array(values, arrow_type(COLUMNS[name], ids=True)) for name, values in given.items()},
            }
        )


@dataclass
class Tally:
    """What is known of all users after their rows have gone by."""

    users: int = 0
    with_preference: int = 0
    items: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    seconds: float = 0.0

    def read(self, parts: Iterable[list[User]]) -> Iterator[list[User]]:
        """Count the users of `parts` on their way."""
        for users in parts:
            self.users += len(users)
            self.with_preference += sum(user.preference is not None for user in users)
            yield users

    def wrote(self, parts: Iterable[pa.Table], notify: Callable[[int], None]) -> Iterator[pa.Table]:
        """Note the items of recommended lists on their way, and the time until the last list."""
        began, done = time.monotonic(), 0
        for part in parts:
            shown = part["item_ids"].combine_chunks().flatten()
            self.items = pc.unique(pa.chunked_array([self.items, shown]))
            done += part.num_rows
            notify(done)
            yield part
        self.seconds = time.monotonic() - began


def score(
    parts: Iterable[Sequence[User]], tracking_uri: str, version: str, chosen: RecommendationsSettings
) -> Iterator[pa.Table]:
    """Columns user_id, item_ids, scores and preference for each user of `parts`, in their order.

    The batches are the same if the parts are, so the scores of the same users are the same to the last bit.
    """
    arguments = (tracking_uri, version, chosen.k, chosen.exclude_seen, chosen.where)
    tables = (table for users in parts for table in batches(users, chosen.users_per_batch))
    return through(Scorer, arguments, tables, chosen.actors, chosen.cpus_per_actor)


def run(request: StageRequest) -> StageReport:
    """Score the partition's users and publish the table `recommendations`."""
    settings = load_settings()
    chosen = stage_settings(RecommendationsSettings, settings, request)
    name, version = (request.upstream.get(f"register.{key}") for key in ("model_name", "version"))
    if not name or not version:
        raise DataError("recommendations needs register.model_name and register.version in --upstream; run register")
    client = runs.connect(settings)
    try:
        client.get_model_version(name, version)
    except MlflowException as error:
        raise DataError(
            f"version {version} of model {name} is not in the registry at {settings.mlflow.tracking_uri} "
            f"({error.error_code}); run the register stage again"
        ) from error
    reference = f"{name}/{version}"
    tally, progress = Tally(), Progress(settings.home, STAGE)
    progress.update(0, 1, "reading users")
    total = input_rows(settings, request, "sequences")
    size = -(-USERS_AT_ONCE // chosen.users_per_batch) * chosen.users_per_batch  # whole batches
    parts = tally.read(user_parts(settings, request, size))
    rows = score(parts, settings.mlflow.tracking_uri, reference, chosen)
    handoff = publish_parts(
        tally.wrote(rows, lambda done: progress.update(done, total, f"{done:,} users")),
        RECOMMENDATIONS,
        settings.table_uri(request.dataset, "recommendations"),
        {"partition_date": request.partition_date(), "model_version": reference},
        request.identity(),
        along="user_id",
    )
    return StageReport(
        stage=STAGE,
        status="done",
        handoffs={"recommendations": handoff},
        counts={
            "users": tally.users,
            "with_preference": tally.with_preference,
            "items_recommended": len(tally.items),
            "scoring_seconds": round(tally.seconds, 2),
        },
        outputs={"model_version": reference},
    )
