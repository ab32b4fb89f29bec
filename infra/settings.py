"""Addresses and sizes, from a profile file and environment variables; no code asks which profile it runs under.

Order, later wins: defaults here, the profile (`infra/profiles/<name>.toml`, or a path, in ``PENCHANT_PROFILE``),
environment variables (``PENCHANT_LLM__BASE_URL=...``). Settings of a stage or recipe live under ``[stages.<section>]``
of the profile and can be overridden per run with dotted names (``mendertok.epochs``).
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from infra import masks
from infra.bounds import Bounded, told
from infra.errors import SettingError
from infra.home import keep_private, registry_login
from infra.suggestions import meant

REPOSITORY = Path(__file__).resolve().parent.parent
LONG_ENOUGH = 16
"""The end of a webhook's path that is shorter is a word."""


class SparkSettings(BaseModel, extra="forbid"):
    """How Spark jobs start.

    Args:
        master: address of the Spark master.
        driver_memory: heap of the driver such as ``4g``. ``auto``: 2 GB for small inputs, else a quarter of the
            machine's memory.
        linger_s: seconds that a driver waits for another stage, which then starts at once and finds Java warm; it ends
            after a failure, so that a retry starts afresh. 0: each stage has a driver of its own.
        shuffle_partitions: partitions of a shuffle.
        jars_dir: folder of Delta's JARs.
        extra_conf: further Spark properties, such as those of an object store.
    """

    master: str = "local[2]"
    driver_memory: str = "auto"
    linger_s: float = Field(default=0, ge=0)
    shuffle_partitions: int = 2
    jars_dir: Path = REPOSITORY / ".penchant" / "jars"
    extra_conf: dict[str, str] = {}


class RaySettings(BaseModel, extra="forbid"):
    """Where Ray jobs are submitted and how large a training worker group is.

    Args:
        dashboard_address: of the cluster that jobs are submitted to.
        workers: training processes.
        cpus_per_worker: cores of each.
        use_gpu: a GPU for each.
        storage: path or address of checkpoints and of streamed training examples.
        parallel: ``ddp`` gives every worker the whole model, ``fsdp`` splits weights and optimiser state over them.
        stream_rows: more training examples than this are not held in memory but streamed from files below `storage`.
        checkpoint_s: seconds between two checkpoints, beside those of evaluations; a killed worker loses no more.
        job_timeout_s: a job that runs longer is stopped.
        deferrable: tasks wait for their jobs in Airflow's triggerer and hold no worker; false where none runs.
    """

    dashboard_address: str = "http://127.0.0.1:8265"
    workers: int = 1
    cpus_per_worker: float = 1
    use_gpu: bool = False
    storage: str = str(REPOSITORY / ".penchant" / "ray_results")
    parallel: Literal["ddp", "fsdp"] = "ddp"
    stream_rows: int = Field(default=20_000_000, ge=0)
    checkpoint_s: float = Field(default=60, ge=0)
    job_timeout_s: float = 3600
    deferrable: bool = False


class MLflowSettings(BaseModel, extra="forbid"):
    """Where runs and model versions are recorded.

    Args:
        tracking_uri: address of the MLflow server.
    """

    tracking_uri: str = "http://127.0.0.1:5000"


class LLMSettings(BaseModel, extra="forbid"):
    """Any OpenAI-compatible endpoint.

    Args:
        base_url: address of the endpoint.
        api_key: sent with each request.
        model: name of the model there.
        scoring: how log-probabilities are had: ``grammar`` (llama.cpp's server: a continuation forced by a token
            grammar), ``echo`` (completions with prompt echo, as vLLM has), or ``none``.
        concurrency: requests in flight over the whole job; fewer while the endpoint throttles.
        timeout_s: seconds that one answer may take.
        max_attempts: how often a request is sent when the endpoint fails.
        max_throttled: how many replies "too many requests" a request takes beside.
        longest_wait_s: an endpoint that asks to wait longer ends the stage.
        extra_body: fields that go with every request and win over the usual ones; null leaves a field out. Those that
            an endpoint refuses are replaced by themselves, see `pipelines.language.dialect`.
        price_in, price_out: price of a million tokens in and out, for estimates, budgets and reports.
        mode: ``online``, or ``batch`` for the endpoint's batch API (cheaper, up to a day later; no scoring there).
        batch_requests: most requests of one batch; fewer where the endpoint allows few queued tokens.
        batch_poll_s: seconds before the first look at a batch; the wait grows twentyfold.
        batch_window: time that the endpoint may take for a batch.
    """

    base_url: str = "http://127.0.0.1:8095/v1"
    api_key: str = "local"
    model: str = "SmolLM2-135M-Instruct"
    scoring: str = "grammar"
    concurrency: int = Field(default=4, ge=1)
    timeout_s: float = Field(default=60, gt=0, allow_inf_nan=False)
    max_attempts: int = Field(default=4, ge=1)
    max_throttled: int = Field(default=12, ge=0)
    longest_wait_s: float = Field(default=120, ge=0, allow_inf_nan=False)
    extra_body: dict[str, Any] = {}
    price_in: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    price_out: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    mode: Literal["online", "batch"] = "online"
    batch_requests: int = Field(default=50_000, ge=1, le=50_000)
    batch_poll_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    batch_window: str = "24h"


class AlertSettings(BaseModel, extra="forbid"):
    """Who is told of runs that failed or are late; nobody by default.

    Args:
        webhook_url: gets a JSON document by POST, with a field ``text`` as chat services read it: the tasks that
            failed, their messages, addresses of logs.
        email_to: addresses that get the same by e-mail.
        email_from: sender of the e-mails.
        smtp_host, smtp_port: the mail server.
        smtp_security: whether the connection to it is encrypted from the start (``ssl``), after a hello (``starttls``)
            or not.
        smtp_user, smtp_password: login of the mail server, where it asks for one.
        timeout_s: seconds that a delivery may take.
        deadline_minutes: a daily run that is not finished so long after it was queued is late; 0 for never.
    """

    webhook_url: str = ""
    email_to: list[str] = []
    email_from: str = "penchant@localhost"
    smtp_host: str = ""
    smtp_port: int = Field(default=25, ge=1, le=65535)
    smtp_security: Literal["none", "starttls", "ssl"] = "none"
    smtp_user: str = ""
    smtp_password: str = ""
    timeout_s: float = Field(default=10, gt=0)
    deadline_minutes: float = Field(default=0, ge=0)

    @property
    def enabled(self) -> bool:
        """Whether there is somebody to tell."""
        return bool(self.webhook_url or self.email_to)

    @model_validator(mode="after")
    def _can_be_delivered(self) -> "AlertSettings":
        if self.webhook_url and not self.webhook_url.startswith(("http://", "https://")):
            raise ValueError("webhook_url must begin with http:// or https://")
        wrong = [address for address in self.email_to if address.count("@") != 1]
        if wrong:
            raise ValueError(f"email_to has {wrong[0]!r}, which is no e-mail address")
        if self.email_to and not self.smtp_host:
            raise ValueError("email_to needs smtp_host, the mail server that takes the messages")
        if self.deadline_minutes and not self.enabled:
            raise ValueError("deadline_minutes needs somebody to tell: set webhook_url or email_to")
        return self


class LineageSettings(BaseModel, extra="forbid"):
    """Where OpenLineage events about tasks and their tables go; nowhere by default.

    Args:
        transport: ``file`` appends events to a file, a line each; ``http`` sends them to a server.
        namespace: of the jobs in the events.
        path: of the file; ``<home>/lineage/events.jsonl`` when empty.
        url, endpoint: of the server that takes events by POST.
        api_key: sent with each.
    """

    transport: Literal["none", "file", "http"] = "none"
    namespace: str = "penchant"
    path: str = ""
    url: str = ""
    endpoint: str = "api/v1/lineage"
    api_key: str = ""

    @model_validator(mode="after")
    def _has_an_address(self) -> "LineageSettings":
        if self.transport == "http" and not self.url.startswith(("http://", "https://")):
            raise ValueError("transport http needs url, which begins with http:// or https://")
        return self


class Settings(BaseSettings):
    """Everything that differs between a laptop and a cluster.

    Args:
        home: folder of tables, models, logs and keys that no other setting puts elsewhere.
        warehouse: path or address of the tables; ``<home>/warehouse`` when empty.
        spark, ray, mlflow, llm, alerts, lineage: sections of their own.
        stages: settings of stages and recipes by section.
    """

    model_config = SettingsConfigDict(
        env_prefix="PENCHANT_", env_nested_delimiter="__", extra="forbid", hide_input_in_errors=True
    )

    home: str = str(REPOSITORY / ".penchant")
    warehouse: str = ""
    spark: SparkSettings = SparkSettings()
    ray: RaySettings = RaySettings()
    mlflow: MLflowSettings = MLflowSettings()
    llm: LLMSettings = LLMSettings()
    alerts: AlertSettings = AlertSettings()
    lineage: LineageSettings = LineageSettings()
    stages: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _endpoint_has_one_key(self) -> "Settings":
        if any(masks.passwords_of(self.llm.base_url)):
            raise ValueError("llm.base_url has a password in it, beside which no key can be sent: use llm.api_key")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the profile file below the environment."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, profile_path())

    def table_uri(self, dataset: str, table: str) -> str:
        """Where a table of a data set lives."""
        root = self.warehouse or f"{self.home}/warehouse"
        return f"{root}/{dataset}/{table}"

    def datasets_dir(self) -> Path:
        """Folder of the data sets' registrations."""
        return Path(self.home) / "datasets"

    def report_uri(self, dataset: str, partition: str, identity: str) -> str:
        """Where the report of a stage with that run identity lies."""
        return f"{self.home}/stages/{dataset}/{partition}/{identity}.json"

    def latest_report_uri(self, dataset: str, partition: str, task_id: str) -> str:
        """Where the newest successful report of a task of the daily chain lies, for ad-hoc runs to start from."""
        return f"{self.home}/stages/{dataset}/{partition}/latest/{task_id}.json"

    def failure_uri(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Where a task of a run that failed for good leaves what it said."""
        return f"{self.home}/failures/{dag_id}/{re.sub(r'[^A-Za-z0-9_.-]', '-', run_id)}/{task_id}.json"

    def data_docs_dir(self, dataset: str) -> Path:
        """Folder of the data docs pages of a data set."""
        return Path(self.home) / "data_docs" / dataset


def profile_path() -> Path:
    """The profile file in use.

    Raises:
        SettingError: ``PENCHANT_PROFILE`` names neither a file nor a profile in `infra/profiles`.
    """
    name = os.environ.get("PENCHANT_PROFILE", "local")
    for path in (Path(name), Path(__file__).parent / "profiles" / f"{name}.toml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(p.stem for p in (Path(__file__).parent / "profiles").glob("*.toml")))
    raise SettingError(f"PENCHANT_PROFILE={name!r} is neither a file nor one of the profiles: {known}")


def load_settings() -> Settings:
    """Read the profile and the environment.

    What is secret in them is left out of what this process says from now on (`infra.masks`), MLflow's client knows the
    password of the local server, and the home is its owner's alone.

    Raises:
        SettingError: a setting is unknown, of the wrong type or out of bounds; each is named. Or a variable or the
            profile cannot be read.
    """
    for name in os.environ:
        section, nested, _ = name.lower().removeprefix("penchant_").partition("__")
        if nested and name.upper().startswith("PENCHANT_") and section not in Settings.model_fields:
            raise SettingError(
                f"{name[:80]} names no setting{meant(section, Settings.model_fields)}; `penchant settings` lists them"
            )
    try:
        settings = Settings()
        keep_private(Path(settings.home))
        os.environ.update(registry_login(Path(settings.home), settings.mlflow.tracking_uri))
        masks.hide([*secrets_of(settings), *masks.secrets_of_environment()])
        masks.hide_short(masks.short_passwords_in(settings.model_dump()))
        return settings
    except ValidationError as error:
        raise SettingError(f"settings from {profile_path()} and PENCHANT_* variables: {told(error)}") from error
    except SettingsError as error:
        raise SettingError(_about_variable(error)) from error
    except RecursionError as error:
        raise SettingError(
            f"a value in {profile_path()} or a PENCHANT_* variable is nested too deeply: shorten it"
        ) from error
    except (TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingError(f"profile {profile_path()} cannot be read as TOML: {str(error)[:120]}") from error


def _about_variable(error: SettingsError) -> str:
    """Which variable cannot be read, and where in it; its value may be a secret."""
    cause = error.__cause__
    if not isinstance(cause, json.JSONDecodeError):
        return f"PENCHANT_* variables: {str(error)[:120]}"
    names = [name for name, value in os.environ.items() if name.upper().startswith("PENCHANT_") and value == cause.doc]
    place = f"{cause.msg}, character {cause.pos + 1}"
    return f'{" or ".join(names) or error} is no JSON ({place}): write lists as ["a"] and tables as {{"a": 1}}'


def secrets_of(settings: BaseModel) -> list[str]:
    """What no text that leaves a process may have in it: keys, passwords, also in addresses, and paths of webhooks."""
    found = list(masks.secrets_in(settings.model_dump()))
    if isinstance(settings, Settings) and settings.alerts.webhook_url:
        # The path, or the end of it, is the secret at many services.
        end = urlsplit(settings.alerts.webhook_url).path.rpartition("/")[2]
        found += [settings.alerts.webhook_url, *([end] if len(end) >= LONG_ENOUGH else [])]
    return found


T = TypeVar("T")


class Overriding(Protocol):
    """What overrides settings and says which ones it reads; `schemas.stage_request.StageRequest` is one."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Settings by dotted name."""

    def require_section(self, section: str) -> None:
        """Raise AssertionError for a section that is not declared to be read."""


Given = Overriding | Mapping[str, Any] | None
"""The request of a stage, which has to declare what it reads, or a tool's overrides by dotted name."""


def overrides_for(section: str, given: Given) -> Mapping[str, Any]:
    """The overrides in `given`; a request is held to the sections that its stage declares."""
    if given is None or isinstance(given, Mapping):
        return given or {}
    given.require_section(section)
    return given.overrides


def stage_settings(kind: type[T], settings: Settings, given: Given = None) -> T:
    """Build the settings dataclass of a section from the profile and a run's overrides.

    Args:
        kind: its ``section`` is the name under ``[stages.*]`` and before the dot in overrides.

    Raises:
        SettingError: see `checked`.
    """
    assert issubclass(kind, Bounded)
    prefix = f"{kind.section}."
    overrides = overrides_for(kind.section, given)
    own = {k.removeprefix(prefix): v for k, v in overrides.items() if k.startswith(prefix)}
    return checked(kind, {**settings.stages.get(kind.section, {}), **own})


def checked(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build the settings dataclass of a section.

    Args:
        kind: a keyword-only dataclass and subclass of `infra.bounds.Bounded`.

    Raises:
        SettingError: a name is unknown, or a value is of the wrong type or out of bounds.
    """
    assert dataclasses.is_dataclass(kind)
    assert issubclass(kind, Bounded)
    names = {f.name for f in dataclasses.fields(kind)}
    for name in values:
        if name not in names:
            shown = f"{kind.section}.{name[:80]}"
            raise SettingError(
                f"{shown} is no setting{meant(name, names)}; `penchant settings {kind.section}` lists them"
            )
    return kind(**values)
