import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from infra.bounds import Bounded, Count, Positive, ShareBelowOne
from infra.commands.sections import kinds
from infra.errors import SettingError
from infra.local_environment import Ports
from infra.settings import Settings, load_settings
from schemas.sections import settings_of, stage_settings


@dataclass(frozen=True, kw_only=True)
class Recipe(Bounded):
    section: ClassVar[str] = "recipe"

    epochs: Count = 10
    lr: Positive = 0.1
    keep: ShareBelowOne | None = None
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (8,)
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)
    fuse: Literal["on", "off"] = "off"


def test_the_environment_wins_over_the_profile(monkeypatch):
    monkeypatch.setenv("PENCHANT_LLM__BASE_URL", "http://elsewhere/v1")
    assert load_settings().llm.base_url == "http://elsewhere/v1"


def test_an_unknown_setting_is_named(monkeypatch, tmp_path):
    profile = tmp_path / "p.toml"
    profile.write_text("[llm]\nbase_ulr = 'x'\n")
    monkeypatch.setenv("PENCHANT_PROFILE", str(profile))
    with pytest.raises(SettingError, match=r"llm\.base_ulr"):
        load_settings()


@pytest.mark.parametrize("name", ["STATE", "WAREHOUSE", "RAY__STORAGE"])
def test_an_address_that_masking_would_change_is_refused(monkeypatch, name):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "recommender")
    monkeypatch.setenv(f"PENCHANT_{name}", "s3://shops/recommender/here")
    with pytest.raises(
        SettingError, match=rf"the setting {name.lower().replace('__', '.')} contains the value of a key"
    ):
        load_settings()
    monkeypatch.setenv(f"PENCHANT_{name}", "s3://shops/here")
    load_settings()


@pytest.mark.parametrize(
    ("alerts", "message"),
    [
        ({"webhook_url": "hooks.example.org/x"}, "must begin with http"),
        ({"email_to": ["ops"], "smtp_host": "mail"}, "'ops', which is not an e-mail address"),
        ({"email_to": ["ops@example.org"]}, "email_to needs smtp_host"),
        ({"deadline_minutes": 60}, "deadline_minutes needs a receiver"),
        ({"smtp_port": 0}, r"alerts\.smtp_port"),
        ({"webhok_url": "http://x"}, r"alerts\.webhok_url"),
    ],
)
def test_alerts_that_could_not_be_delivered_are_refused(monkeypatch, alerts, message):
    for name, value in alerts.items():
        monkeypatch.setenv(f"PENCHANT_ALERTS__{name.upper()}", json.dumps(value) if name == "email_to" else str(value))
    with pytest.raises(SettingError, match=message):
        load_settings()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("timeout_s", ("nan", "inf", "0", "-1")),
        ("concurrency", ("0", "-1")),
        ("max_attempts", ("0", "-1")),
        ("max_throttled", ("-1",)),
        ("longest_wait_s", ("nan", "inf", "-1")),
        ("price_in", ("-5", "nan", "inf")),
        ("price_out", ("-5", "nan", "inf")),
        ("batch_poll_s", ("nan", "inf", "0")),
    ],
)
def test_sizes_of_the_model_that_cannot_be_are_refused_by_name(monkeypatch, name, values):
    for value in values:
        monkeypatch.setenv(f"PENCHANT_LLM__{name.upper()}", value)
        with pytest.raises(SettingError, match=rf"llm\.{name}"):
            load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PENCHANT_LLM__EXTRA_BODY", "{planted"),
        ("PENCHANT_ALERTS__EMAIL_TO", "planted@shop.example"),
        ("PENCHANT_STAGES", '["planted'),
    ],
)
def test_a_variable_that_is_no_json_is_named_and_not_shown(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match=rf"^{variable} is not JSON \(.*character \d+\): write") as refused:
        load_settings()
    assert "planted" not in str(refused.value)
    monkeypatch.setenv(variable, "[" * 100_000)
    with pytest.raises(SettingError, match="PENCHANT_"):
        load_settings()


def test_a_variable_of_an_unknown_section_is_named(monkeypatch):
    monkeypatch.setenv("PENCHANT_FOO__BAR", "1")
    with pytest.raises(SettingError, match=r"PENCHANT_FOO__BAR names no setting; `penchant settings` lists them"):
        load_settings()


@pytest.mark.parametrize("content", [b'[llm]\nbase_url = "x\n', b"\xff\xfe", b"[" * 100_000])
def test_a_broken_profile_is_named(monkeypatch, tmp_path, content):
    profile = tmp_path / "p.toml"
    profile.write_bytes(content)
    monkeypatch.setenv("PENCHANT_PROFILE", str(profile))
    with pytest.raises(SettingError, match=r"p\.toml cannot be read as TOML: ") as refused:
        load_settings()
    assert len(str(refused.value)) < 300


def test_an_unknown_profile_lists_those_that_exist(monkeypatch):
    monkeypatch.setenv("PENCHANT_PROFILE", "moon")
    with pytest.raises(SettingError, match="local"):
        load_settings()


def test_overrides_win_over_the_profile_and_leave_other_sections_alone():
    settings = Settings(stages={"recipe": {"epochs": 5, "lr": 0.5}})
    made = stage_settings(Recipe, settings, {"recipe.epochs": 7, "sasrec.epochs": 9})
    assert made == Recipe(epochs=7, lr=0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"recipe.epoch": 1},
            r"recipe\.epoch is no setting \(did you mean epochs\?\); `penchant settings recipe` lists them",
        ),
        ({"recipe.lr": "x"}, r"recipe\.lr"),
    ],
)
def test_a_wrong_override_is_named(overrides, message):
    with pytest.raises(SettingError, match=message):
        stage_settings(Recipe, load_settings(), overrides)


def test_a_section_that_nothing_reads_is_refused_wherever_it_is_given(monkeypatch, tmp_path):
    told = r"no section of settings 'sasrek': did you mean sasrec\? \(`penchant settings` lists them\)"
    with pytest.raises(SettingError, match=f"overrides: {told}"):
        stage_settings(Recipe, Settings(stages={}), {"sasrek.epochs": 3})
    with monkeypatch.context() as patch:
        patch.setenv("PENCHANT_STAGES__SASREK__EPOCHS", "3")
        with pytest.raises(SettingError, match=rf"PENCHANT_STAGES__.*{told}"):
            stage_settings(Recipe, load_settings())
    profile = tmp_path / "p.toml"
    profile.write_text("[stages.sasrek]\nepochs = 5\n")
    monkeypatch.setenv("PENCHANT_PROFILE", str(profile))
    with pytest.raises(SettingError, match=f"profile .*{told}"):
        stage_settings(Recipe, load_settings())


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        ("RAY__WORKERS", ("0", "-3")),
        ("RAY__CPUS_PER_WORKER", ("nan", "0")),
        ("RAY__JOB_TIMEOUT_S", ("-1", "inf")),
        ("SPARK__SHUFFLE_PARTITIONS", ("0",)),
        ("LLM__SCORING", ("gramar",)),
        ("ALERTS__DEADLINE_MINUTES", ("nan",)),
    ],
)
def test_sizes_of_services_that_cannot_be_are_refused_by_name(monkeypatch, variable, values):
    for value in values:
        monkeypatch.setenv(f"PENCHANT_{variable}", value)
        with pytest.raises(SettingError, match=variable.lower().replace("__", r"\.")):
            load_settings()


NO_SEEDS = (-1, 2**31, float("nan"))
NO_WEIGHTS = (-1, float("nan"), float("inf"), -float("inf"))


def test_no_number_without_bounds_is_left_in_any_section():
    """No number of any section may be below zero, NaN or infinite."""
    for section, kinds_of in kinds().items():
        for kind in kinds_of:
            if not issubclass(kind, Bounded):
                continue
            for name, default in ((one.name, one.default) for one in fields(kind)):
                if isinstance(default, bool) or not isinstance(default, int | float):
                    continue
                for wrong in NO_SEEDS if name.endswith("seed") else NO_WEIGHTS:
                    if name == "gradient_clip" and wrong == float("inf"):
                        assert kind(**{name: wrong}).gradient_clip == wrong, "which is no clipping"
                        continue
                    with pytest.raises(SettingError, match=rf"^{section}\.{name}\b"):
                        kind(**{name: wrong})


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("sasrec", {"phases": [{"losses": {"loss": float("nan")}}]}),
        ("sasrec", {"phases": [{"losses": {"loss": -1}}]}),
        ("sasrec", {"phases": [{"weight_decay": -1}]}),
        ("sasrec", {"gradient_clip": 0}),
        ("sasrec", {"beta2": 1}),
        ("sasrec", {"heads": 3}),
        ("hstu", {"heads": 3}),
        ("sasrec", {"positions": "rotary", "width": 6, "heads": 2}),
        ("ensrec", {"encoder": "minilm"}),
        ("rpg", {"encoder": "minilm"}),
        ("rpg", {"heads": 3}),
        ("rpg", {"digits": 7}),
        ("rpg", {"codebook_size": 100}),
        ("steering", {"encoder": "minilm"}),
        ("llm", {"max_bad_share": 1e9}),
    ],
)
def test_values_that_would_spoil_a_run_are_refused_before_it(section, wrong):
    with pytest.raises(SettingError, match=rf"^{section}\.{next(iter(wrong))}\b") as refused:
        settings_of(section, Settings(stages={section: wrong}))
    assert len(str(refused.value)) < 200


def test_a_port_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_PORT", "many")
    with pytest.raises(SettingError, match="MLFLOW_PORT='many'"):
        Ports.from_environment()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "recipe.epochs is 0, but must be at least 1"),
        ({"lr": 0}, "recipe.lr is 0, but must be above 0"),
        ({"lr": float("nan")}, "recipe.lr is nan, but must be a finite number"),
        ({"lr": float("inf")}, "recipe.lr is inf, but must be a finite number"),
        ({"weights": {"loss": float("nan")}}, "recipe.weights.loss is nan, but must be a finite number"),
        ({"widths": [0]}, "recipe.widths.0 is 0, but must be at least 1"),
        ({"epochs": -(10**90)}, f"recipe.epochs is -1{'0' * 58}..., but must be at least 1"),
        ({"keep": 1.0}, "recipe.keep is 1.0, but must be below 1"),
        ({"widths": [8, 0]}, "recipe.widths.1 is 0, but must be at least 1"),
        ({"epochs": 2.5}, "recipe.epochs: Input should be a valid integer, got a number with a fractional part"),
        ({"fuse": "some"}, "recipe.fuse: Input should be 'on' or 'off'"),
        ({"lr": -1, "epochs": 0}, "recipe.epochs is 0, but must be at least 1; recipe.lr is -1, but must be above 0"),
    ],
)
def test_a_wrong_value_is_named_once_with_its_section_however_it_is_given(wrong, told):
    overrides = {f"recipe.{name}": value for name, value in wrong.items()}
    for make in (
        lambda: Recipe(**wrong),
        lambda: replace(Recipe(), **wrong),
        lambda: stage_settings(Recipe, load_settings(), overrides),
    ):
        with pytest.raises(SettingError) as refused:
            make()
        assert str(refused.value) == told


def test_a_value_is_turned_into_its_type_where_that_loses_nothing():
    made = Recipe(epochs="3", lr=1, widths=[2, 4], keep=None)
    assert (made.epochs, made.lr, made.widths) == (3, 1.0, (2, 4))
    assert isinstance(made.lr, float)
    assert hash(made) == hash(Recipe(epochs=3, lr=1.0, widths=(2, 4)))
    assert Recipe(widths="[2, 4]", weights='{"loss": 2}') == Recipe(widths=(2, 4), weights={"loss": 2.0})


def test_a_profile_out_of_bounds_says_so_in_the_same_words(monkeypatch):
    monkeypatch.setenv("PENCHANT_LLM__CONCURRENCY", "0")
    with pytest.raises(SettingError, match=r"llm\.concurrency is '0', but must be at least 1"):
        load_settings()
