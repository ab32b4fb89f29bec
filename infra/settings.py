"""Settings, from defaults, a profile file and environment variables, in this order of precedence.

``PENCHANT_PROFILE`` is a path or the name of a file in `infra/profiles`; variables are ``PENCHANT_LLM__BASE_URL`` and
the like. Settings of stages and recipes are in ``[stages.<section>]`` of the profile; a run can override them by dotted
names (``mendertok.epochs``).
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, Literal
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
from infra.bounds import Count, Positive, problems
from infra.errors import SettingError
from infra.home import keep_private, registry_login
from infra.storage import join
from infra.suggestions import meant

REPOSITORY = Path(__file__).resolve().parent.parent
LONG_ENOUGH = 16
"""Characters from which the last part of a webhook's path counts as a key."""


class SparkSettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """How Spark jobs start.

    Args:
        master: address of the Spark master.
        driver_memory: heap of the driver such as ``4g``. ``auto``: 2 GB for small inputs, else a quarter of the
            machine's memory.
        linger_s: seconds that a driver waits for another stage, which then starts at once in a warm JVM; after a
            failure it ends. 0: each stage has its own driver.
        shuffle_partitions: partitions of a shuffle.
        jars_dir: folder of the Delta JARs.
        extra_conf: further Spark properties, such as those of an object store.
    """

    master: str = "local[2]"
    driver_memory: str = "auto"
    linger_s: float = Field(default=0, ge=0)
    shuffle_partitions: Count = 2
    jars_dir: Path = REPOSITORY / ".penchant" / "jars"
    extra_conf: dict[str, str] = {}


class RaySettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """Where Ray jobs are submitted and how large a training worker group is.

    Args:
        dashboard_address: of the cluster that jobs are submitted to.
        workers: training processes.
        cpus_per_worker: cores of each.
        use_gpu: give each a GPU.
        storage: path or address of checkpoints and of streamed training examples.
        parallel: ``ddp`` gives every worker the whole model, ``fsdp`` shards weights and optimiser state over them.
        stream_rows: more training examples than this are streamed from files below `storage` instead of kept in memory.
        checkpoint_s: seconds between checkpoints, in addition to those of evaluations.
        job_timeout_s: seconds after which a job is stopped.
        deferrable: tasks wait for jobs in Airflow's triggerer instead of a worker; false if there is no triggerer.
    """

    dashboard_address: str = "http://127.0.0.1:8265"
    workers: Count = 1
    cpus_per_worker: Positive = 1
    use_gpu: bool = False
    storage: str = str(REPOSITORY / ".penchant" / "ray_results")
    parallel: Literal["ddp", "fsdp"] = "ddp"
    stream_rows: int = Field(default=20_000_000, ge=0)
    checkpoint_s: float = Field(default=60, ge=0)
    job_timeout_s: Positive = 3600
    deferrable: bool = False


class MLflowSettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """Where runs and model versions are recorded.

    Args:
        tracking_uri: address of the MLflow server.
    """

    tracking_uri: str = "http://127.0.0.1:5000"


class LLMSettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """Any OpenAI-compatible endpoint.

    Args:
        base_url: address of the endpoint.
        api_key: sent with each request.
        model: name of the model there.
        scoring: how to get log-probabilities: ``grammar`` (llama.cpp's server, a token grammar forces the
            continuation), ``echo`` (completions that echo the prompt, as in vLLM), or ``none``.
        concurrency: requests in flight in the whole job; fewer while the endpoint throttles.
        timeout_s: limit of seconds for one answer.
        max_attempts: how often to send a request if the endpoint fails.
        max_throttled: how often to repeat a request in addition after "too many requests".
        longest_wait_s: a stage ends if the endpoint demands a longer wait.
        extra_body: additional fields of every request, which override the usual ones; null removes a field. Fields that
            an endpoint refuses are replaced automatically, see `pipelines.language.dialect`.
        price_in, price_out: price of a million input and output tokens, for estimates, budgets and reports.
        mode: ``online``, or ``batch`` for the endpoint's batch API (cheaper, up to a day later, no scoring).
        batch_requests: limit of requests per batch; fewer if the endpoint limits queued tokens.
        batch_poll_s: seconds before the first poll of a batch; later intervals grow up to twentyfold.
        batch_window: time that the endpoint may take for a batch.
    """

    base_url: str = "http://127.0.0.1:8095/v1"
    api_key: str = "local"
    model: str = "SmolLM2-135M-Instruct"
    scoring: Literal["grammar", "echo", "none"] = "grammar"
    concurrency: int = Field(default=4, ge=1)
    timeout_s: float = Field(default=60, gt=0)
    max_attempts: int = Field(default=4, ge=1)
    max_throttled: int = Field(default=12, ge=0)
    longest_wait_s: float = Field(default=120, ge=0)
    extra_body: dict[str, Any] = {}
    price_in: float = Field(default=0.0, ge=0)
    price_out: float = Field(default=0.0, ge=0)
    mode: Literal["online", "batch"] = "online"
    batch_requests: int = Field(default=50_000, ge=1, le=50_000)
    batch_poll_s: float = Field(default=30, gt=0)
    batch_window: str = "24h"


class AlertSettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """Receivers of alerts about runs that failed or are late; none by default.

    Args:
        webhook_url: receives a JSON document by POST, with a field ``text`` as chat services expect: failed tasks,
            their messages, URLs of logs.
        email_to: e-mail addresses that receive the same.
        email_from: sender of the e-mails.
        smtp_host, smtp_port: the mail server.
        smtp_security: encryption of the connection: ``ssl`` from the start, ``starttls``, or ``none``.
        smtp_user, smtp_password: login of the mail server, if it needs one.
        timeout_s: limit of seconds for a delivery.
        deadline_minutes: a daily run that takes longer, from its queueing on, is late; 0 for no deadline.
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
        """Whether there is a receiver."""
        return bool(self.webhook_url or self.email_to)

    @model_validator(mode="after")
    def _can_be_delivered(self) -> "AlertSettings":
        if self.webhook_url and not self.webhook_url.startswith(("http://", "https://")):
            raise ValueError("webhook_url must begin with http:// or https://")
        wrong = [address for address in self.email_to if address.count("@") != 1]
        if wrong:
            raise ValueError(f"email_to has {wrong[0]!r}, which is not an e-mail address")
        if self.email_to and not self.smtp_host:
            raise ValueError("email_to needs smtp_host, the mail server")
        if self.deadline_minutes and not self.enabled:
            raise ValueError("deadline_minutes needs a receiver: set webhook_url or email_to")
        return self


class LineageSettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """Where to send OpenLineage events about tasks and their tables; nowhere by default.

    Args:
        transport: ``file`` appends events to a file, a line each; ``http`` sends them to a server.
        namespace: of the jobs in the events.
        path: of the file; ``<home>/lineage/events.jsonl`` when empty.
        url, endpoint: of the server that receives events by POST.
        api_key: sent with each event.
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


class MetricsSettings(BaseModel, extra="forbid", allow_inf_nan=False):
    """Where stages send their metrics when they end; nowhere by default.

    Args:
        pushgateway: address of a Prometheus Pushgateway; may contain user and password.
        timeout_s: limit of seconds for sending.
    """

    pushgateway: str = ""
    timeout_s: float = Field(default=5, gt=0)

    @model_validator(mode="after")
    def _is_an_address(self) -> "MetricsSettings":
        if self.pushgateway and not self.pushgateway.startswith(("http://", "https://")):
            raise ValueError("pushgateway must begin with http:// or https://")
        return self


class Settings(BaseSettings):
    """The settings of a profile.

    Args:
        home: folder on this machine for logs, keys and sockets, and for all below that has no place of its own.
        state: path or address of what the engines share: registrations, reports, bundles, tokenizers, data docs,
            journals and locks; `home` if empty. Several machines need an object store here.
        warehouse: path or address of the tables; ``<state>/warehouse`` if empty.
        spark, ray, mlflow, llm, alerts, lineage, metrics: sections.
        stages: settings of stages and recipes by section.
    """

    model_config = SettingsConfigDict(
        env_prefix="PENCHANT_", env_nested_delimiter="__", extra="forbid", hide_input_in_errors=True
    )

    home: str = str(REPOSITORY / ".penchant")
    state: str = ""
    warehouse: str = ""
    spark: SparkSettings = SparkSettings()
    ray: RaySettings = RaySettings()
    mlflow: MLflowSettings = MLflowSettings()
    llm: LLMSettings = LLMSettings()
    alerts: AlertSettings = AlertSettings()
    lineage: LineageSettings = LineageSettings()
    metrics: MetricsSettings = MetricsSettings()
    stages: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _endpoint_has_one_key(self) -> "Settings":
        if any(masks.passwords_of(self.llm.base_url)):
            raise ValueError("llm.base_url contains a password, so no key can be sent: use llm.api_key")
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
        """Address of a table of a data set."""
        root = self.warehouse or self.shared("warehouse")
        return f"{root}/{dataset}/{table}"

    def shared(self, *names: str) -> str:
        """Address of a file or folder that all engines see."""
        return join(self.state or self.home, *names)

    def datasets_dir(self) -> str:
        """Address of the data sets' registrations."""
        return self.shared("datasets")

    def report_uri(self, dataset: str, partition: str, identity: str) -> str:
        """Address of the report of a stage with that run identity."""
        return self.shared("stages", dataset, partition, f"{identity}.json")

    def latest_report_uri(self, dataset: str, partition: str, task_id: str) -> str:
        """Address of the newest report of a task of the daily chain, from which ad-hoc runs start."""
        return self.shared("stages", dataset, partition, "latest", f"{task_id}.json")

    def failure_uri(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Address of the record of a failed task."""
        return self.shared("failures", dag_id, re.sub(r"[^A-Za-z0-9_.-]", "-", run_id), f"{task_id}.json")

    def data_docs_dir(self, dataset: str) -> str:
        """Address of the data docs pages of a data set."""
        return self.shared("data_docs", dataset)


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

    As a side effect, their secrets are masked in all output of this process (`infra.masks`), MLflow's client gets the
    login of the local server, and the home folder is made private.

    Raises:
        SettingError: a setting is unknown, of the wrong type or out of bounds, or a variable or the profile cannot be
            read.
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
        found = [*secrets_of(settings), *masks.secrets_in(os.environ)]
        masks.hide(found)
        masks.hide_short(masks.short_passwords_in(settings.model_dump()))
        _require_whole_addresses(settings, found)
        return settings
    except ValidationError as error:
        raise SettingError(f"settings from {profile_path()} and PENCHANT_* variables: {problems(error)}") from error
    except SettingsError as error:
        raise SettingError(_about_variable(error)) from error
    except RecursionError as error:
        raise SettingError(
            f"a value in {profile_path()} or a PENCHANT_* variable is nested too deeply: shorten it"
        ) from error
    except (TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingError(f"profile {profile_path()} cannot be read as TOML: {str(error)[:120]}") from error


def _require_whole_addresses(settings: Settings, hidden: Sequence[str]) -> None:
    """Refuse addresses that contain one of the `hidden` values: stages hand them on in reports, where it is masked.

    Raises:
        SettingError: one does.
    """
    places = {"home": settings.home, "state": settings.state, "warehouse": settings.warehouse}
    for name, address in (*places.items(), ("ray.storage", settings.ray.storage)):
        if any(len(value) >= masks.SHORTEST and value in address for value in hidden):
            raise SettingError(
                f"the address in the setting {name} contains the value of a key or password, which is masked wherever "
                "it is written: change one of the two"
            )


def _about_variable(error: SettingsError) -> str:
    """Which variable cannot be parsed, and where; not its value, which may be secret."""
    cause = error.__cause__
    if not isinstance(cause, json.JSONDecodeError):
        return f"PENCHANT_* variables: {str(error)[:120]}"
    names = [name for name, value in os.environ.items() if name.upper().startswith("PENCHANT_") and value == cause.doc]
    place = f"{cause.msg}, character {cause.pos + 1}"
    return f'{" or ".join(names) or error} is not JSON ({place}): write lists as ["a"] and tables as {{"a": 1}}'


def secrets_of(settings: BaseModel) -> list[str]:
    """Values to mask: keys, passwords, also in addresses, and paths of webhooks."""
    found = list(masks.secrets_in(settings.model_dump()))
    if isinstance(settings, Settings) and settings.alerts.webhook_url:
        # At many services the path, or its last part, is the key.
        end = urlsplit(settings.alerts.webhook_url).path.rpartition("/")[2]
        found += [settings.alerts.webhook_url, *([end] if len(end) >= LONG_ENOUGH else [])]
    return found
