import json
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from infra.errors import SettingError
from ray_jobs import register, rollback
from ray_jobs.registry import aliases, runs
from ray_jobs.stages import rollback as command
from schemas.stage_request import StageRequest

NAME = "penchant-tiny"


@pytest.fixture
def client(settings, tmp_path):
    """Four versions of the data set: 2 was kept, the others were champion one after another."""
    client = runs.connect(settings)
    client.create_registered_model(NAME)
    for before in ("none", "1", "1", "3"):
        tags = {"penchant.dataset": "tiny", "penchant.champion_before": before, "penchant.decision": "promoted"}
        client.create_model_version(NAME, str(tmp_path), tags=tags)
    aliases.point_alias(client, NAME, "champion", "4")
    return client


def ask(**target):
    upstream = {f"target.{key}": value for key, value in target.items()}
    return rollback.run(StageRequest(stage="rollback", dataset="tiny", partition="2026-02-01", upstream=upstream))


def tags_of(client, version):
    tags = client.get_model_version(NAME, version).tags
    return SimpleNamespace(**{key.removeprefix("penchant."): value for key, value in tags.items()})


def test_the_version_before_is_champion_again_and_both_say_so(client):
    report = ask(reason="wrong prices")
    assert report.outputs["decision"] == "version 3 is champion again in place of 4"
    assert report.counts == {"moved": 1}
    assert aliases.version_at(client, NAME, "champion") == "3"
    left, back = tags_of(client, "4"), tags_of(client, "3")
    assert left.rolled_back.startswith("to version 3 on 2")
    assert left.rolled_back.endswith(": wrong prices")
    assert left.champion_until == back.champion_since
    assert not hasattr(back, "champion_until")

    assert ask().outputs["to"] == "1", "further back: the one before 3, which was never 4"
    with pytest.raises(SettingError, match=rf"no version was champion before {NAME}/1; say which is wanted with --to"):
        ask()
    forward = ask(to="4")
    assert forward.outputs["from"] == "1"
    assert not hasattr(tags_of(client, "4"), "rolled_back"), "a person wants it again"


def test_the_same_again_changes_nothing_and_says_so(client):
    asked = {"champion": "4", "since": "", "to": "2", "reason": "slow"}
    assert ask(**asked).status == "done"
    before = {number: client.get_model_version(NAME, number).tags for number in "1234"}
    again = ask(**asked)
    assert (again.status, again.counts) == ("reused", {"moved": 0})
    assert again.outputs["decision"] == "nothing to do: version 2 is champion already"
    assert {number: client.get_model_version(NAME, number).tags for number in "1234"} == before
    aliases.point_alias(client, NAME, "champion", "1")
    with pytest.raises(SettingError, match="version 1 of penchant-tiny is champion now, not 4 as when"):
        ask(**asked)


@pytest.mark.parametrize("moment", ["set_registered_model_alias", "set_model_version_tag"])
def test_a_killed_rollback_is_completed_by_the_next(client, monkeypatch, moment):
    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(MlflowClient, moment, die)
        with pytest.raises(KeyboardInterrupt):
            ask(champion="4")
    assert aliases.version_at(client, NAME, "champion") == "4"
    assert ask(champion="4").counts == {"moved": 1}
    assert aliases.version_at(client, NAME, "champion") == "3"
    assert ask(champion="4").counts == {"moved": 0}, "and not one further"


def test_strangers_are_refused_and_the_champion_stays(client, tmp_path):
    client.create_registered_model("penchant-shop")
    client.create_model_version("penchant-shop", str(tmp_path))
    client.create_model_version(NAME, str(tmp_path), tags={"penchant.dataset": "shop"})
    for wanted, words in (
        ("9", f"MLflow has no model version '{NAME}/9'; it has: "),
        ("x", f"MLflow has no model version '{NAME}/x'"),
        ("penchant-shop/1", f"penchant-shop/1 is no version of {NAME}: name a version of the data set tiny"),
        ("5", rf"{NAME}/5 was not made by the register stage for data set tiny \(its tag penchant.dataset is 'shop'\)"),
    ):
        with pytest.raises(SettingError, match=words):
            ask(to=wanted)
    assert aliases.version_at(client, NAME, "champion") == "4"
    with pytest.raises(SettingError, match="penchant-shop has no champion"):
        rollback.run(StageRequest(stage="rollback", dataset="shop", partition="2026-02-01"))


def test_one_command_does_it_and_the_stage_form_too(client, tmp_path, capsys):
    command.main(["--dataset", "tiny", "--to", "1", "--reason", "slow answers"])
    assert "version 1 is champion again in place of 4" in capsys.readouterr().out
    assert tags_of(client, "4").rolled_back.endswith(": slow answers")
    report = tmp_path / "report.json"
    request = StageRequest(
        stage="rollback",
        dataset="tiny",
        partition="2026-02-01",
        upstream={"target.champion": "1", "target.to": "3"},
        report_uri=str(report),
    )
    command.main(request.to_argv())
    assert json.loads(report.read_text())["outputs"]["to"] == "3"
    with pytest.raises(SystemExit):
        command.main(["--dataset", "tiny", "--to", "77"])


def test_a_rolled_back_version_is_not_promoted_by_its_register_stage(registered):
    _, request, first = registered
    client = MlflowClient()
    copy = client.get_model_version(NAME, "1")
    client.create_model_version(NAME, copy.source, run_id=copy.run_id, tags={"penchant.dataset": "tiny"})
    rollback.run(StageRequest(stage="rollback", dataset="tiny", partition="2026-02-01", upstream={"target.to": "2"}))
    again = register.run(request)
    assert again.status == "reused"
    assert again.outputs["decision"].startswith("rolled back to version 2 on 2")
    assert f"(it was {first.outputs['decision']})" in again.outputs["decision"]
    client.delete_model_version_tag(NAME, "1", "penchant.decision")
    client.delete_registered_model_alias(NAME, "champion")
    assert register.run(request).status == "done", "its register stage was killed before it had recorded the decision"
    assert client.get_model_version(NAME, "1").tags["penchant.decision"] == "kept"
    assert aliases.version_at(client, NAME, "champion") is None
