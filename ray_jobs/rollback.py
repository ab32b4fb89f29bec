"""The work of `ray_jobs.stages.rollback`: move the alias champion back, and record why on the version that loses it."""

import datetime as dt

from mlflow import MlflowClient

from infra.errors import SettingError
from infra.progress import phased
from infra.settings import load_settings
from ray_jobs.registry import aliases, runs, versions
from ray_jobs.stages.rollback import STAGE
from schemas.handoff import StageReport
from schemas.model_versions import BEFORE_TAG, CHAMPION, NONE, ROLLED_BACK_TAG, registered_name
from schemas.stage_request import StageRequest


def run(request: StageRequest) -> StageReport:
    """Move the alias to ``target.to`` of `request.upstream`; ``target.champion``, if given, must be champion.

    Raises:
        SettingError: there is no champion, no such version of this data set, no previous champion, or the champion is
            neither the one to replace nor the wanted one.
    """
    settings = load_settings()
    client = runs.connect(settings)
    name = registered_name(request.dataset)
    wanted, reason = (request.upstream.get(f"target.{key}", "") for key in ("to", "reason"))
    with aliases.promotion_lock(settings, name):
        now = aliases.champion_of(client, name)
        if now is None:
            raise SettingError(f"{name} has no champion to roll back from; promote a version first")
        left = request.upstream.get("target.champion") or now
        to = _version(client, name, request.dataset, wanted) if wanted else _before(client, name, left)
        outputs = {"model_name": name, "from": left, "to": to}
        if now == to:
            outputs["decision"] = f"nothing to do: version {to} is champion already"
            return StageReport(stage=STAGE, status="reused", counts={"moved": 0}, outputs=outputs)
        if now != left:
            raise SettingError(
                f"version {now} of {name} is champion now, not {left} as when this roll-back was requested; look at it "
                "and trigger again to roll it back, too"
            )
        _roll_back(client, name, left, to, reason)
    outputs["decision"] = f"version {to} is champion again in place of {left}"
    return StageReport(stage=STAGE, status="done", counts={"moved": 1}, outputs=outputs)


def _version(client: MlflowClient, name: str, dataset: str, wanted: str) -> str:
    """The number in `wanted`, ``12`` or ``<name>/12``.

    Raises:
        SettingError: it belongs to another data set, or does not exist.
    """
    model, slash, number = wanted.removeprefix("models:/").rpartition("/")
    if slash and model != name:
        raise SettingError(f"{wanted} is no version of {name}: name a version of the data set {dataset}")
    found = versions.resolve(client, f"{name}/{number}")
    of = found.tags.get("penchant.dataset", "")
    if of != dataset:
        raise SettingError(
            f"{name}/{number} was not made by the register stage for data set {dataset} (its tag penchant.dataset is "
            f"{of!r}); name another version"
        )
    return str(found.version)


def _before(client: MlflowClient, name: str, version: str) -> str:
    """The version that was champion before `version`.

    Raises:
        SettingError: there was none, or it is gone.
    """
    recorded = client.get_model_version(name, version).tags.get(BEFORE_TAG, NONE)
    if recorded == NONE:
        raise SettingError(f"no version was champion before {name}/{version}; say which is wanted with --to <version>")
    return str(versions.resolve(client, f"{name}/{recorded}").version)


@phased("moving the alias")
def _roll_back(client: MlflowClient, name: str, left: str, to: str, reason: str) -> None:
    """Tag first, move the alias last: a retry repeats a killed try completely."""
    moment = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    note = f"to version {to} on {moment}" + (f": {reason}" if reason else "")
    client.set_model_version_tag(name, left, ROLLED_BACK_TAG, note)
    if ROLLED_BACK_TAG in client.get_model_version(name, to).tags:
        client.delete_model_version_tag(name, to, ROLLED_BACK_TAG)
    aliases.record_change(client, name, left, to)
    aliases.point_alias(client, name, CHAMPION, to)
