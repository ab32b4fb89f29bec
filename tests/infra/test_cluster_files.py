"""Dockerfiles, compose file and chart agree with the project: what can be checked without Docker, helm or a cluster."""

import json
import re
import subprocess
import tomllib
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from infra.settings import REPOSITORY, Settings, load_settings
from ray_jobs.registry.lineage import REVISION_VARIABLE
from schemas.sections import class_of
from tests.manifests.helm import CHART, VERSION

IMAGES = REPOSITORY / "infra" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
COMPOSE = REPOSITORY / "infra" / "compose.yaml"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)
NO_SETTING = {"PENCHANT_PROFILE", REVISION_VARIABLE}
each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)


def merged(below, above):
    """Values as helm merges a file of them into the chart's."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def values(size=None, **more):
    found = yaml.safe_load((CHART / "values.yaml").read_text())
    if size:
        found = merged(found, yaml.safe_load((CHART / "sizes" / f"{size}.yaml").read_text()))
    return merged(found, {"images": {"tag": "f00d"}, **more})


def refused(found):
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(found)]


def unknown(variable):
    """Whether a variable names no setting."""
    first, *rest = variable.removeprefix("PENCHANT_").lower().split("__")
    kind = Settings.model_fields.get(first)
    if kind is None or variable in NO_SETTING:
        return variable not in NO_SETTING
    if first == "stages":
        section, name = rest
        return name not in {field.name for field in fields(class_of(section))}
    if rest and isinstance(kind.annotation, type) and issubclass(kind.annotation, BaseModel):
        return rest[0] not in kind.annotation.model_fields
    return bool(rest)


@each_dockerfile
def test_images_install_known_extras_and_copy_what_exists(dockerfile):
    text = dockerfile.read_text().replace("\\\n", " ")
    extras = re.findall(r"--extra (\S+)", text)
    assert extras
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert "-c constraints.txt" in text
    sources = [one for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for one in words.split()[:-1]]
    assert [one for one in sources if not (REPOSITORY / one).exists()] == []
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {one.split("/")[0] for one in sources} <= set(kept), "the build's context has it"


@each_dockerfile
def test_images_run_as_a_user_and_name_their_revision(dockerfile):
    *_, last = re.split(r"^FROM ", dockerfile.read_text(), flags=re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert 'org.opencontainers.image.revision="${REVISION}"' in last
    assert 'test -n "${REVISION}"' in last
    if "COPY --from=build /opt" in last:
        assert f"{REVISION_VARIABLE}=${{REVISION}}" in last
    [base] = re.findall(r"^ARG BASE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    assert ":" in base
    assert not base.endswith(":latest")


def test_tools_have_the_versions_that_are_pinned_elsewhere():
    [uv] = re.findall(r"^UV := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for dockerfile in DOCKERFILES:
        assert re.findall(r"^ARG UV=(\S+)$", dockerfile.read_text(), re.MULTILINE) == [uv]
    assert values()["ray"]["version"] == PINS["ray"]
    assert VERSION in (CHART / "README.md").read_text()
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == PROJECT["version"]


@pytest.mark.parametrize("size", [None, *sorted(path.stem for path in (CHART / "sizes").glob("*.yaml"))])
def test_the_values_of_each_size_are_accepted(size):
    assert refused(values(size)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": {"tag": "latest"}},
        {"images": {"tag": ""}},
        {"settings": {"PENCHANT_LLM__API_KEY": "s3cret"}},
        {"settings": {"LLM": "x"}},
        {"store": {"state": "/mnt/shared"}},
        {"store": {"endpoint": "http://key:word@store"}},
        {"spark": {"executors": {"memory": "4GiB"}}},
        {"serving": {"enabled": True}},
        {"mlflow": {"enabled": False}},
        {"ray": {"groups": {"gpu": {"maximum": 3}}}},
        {"airflow": {"passwrod": "x"}},
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused(wrong):
    assert len(refused(merged(values(), wrong))) == 1


@pytest.mark.parametrize("size", sorted(path.stem for path in (CHART / "sizes").glob("*.yaml")))
def test_a_training_of_each_size_fits_into_its_groups(size):
    """Else Ray waits for a node that never comes."""
    found = values(size)
    ray, places = found["ray"], 0
    for group in ray["groups"].values():
        if ray["useGpu"] and not group["gpu"]:
            continue
        cores = int(float(group["resources"]["limits"]["cpu"]))
        gpus = group["resources"]["limits"].get("nvidia.com/gpu", 0)
        most = int(cores // ray["cpusPerWorker"])
        places += group["max"] * (min(most, gpus) if ray["useGpu"] else most)
    assert places >= ray["workers"]
    heap, pod = found["spark"]["driverMemory"], found["airflow"]["task"]["resources"]["limits"]["memory"]
    assert int(heap.removesuffix("g")) + 1 < int(pod.removesuffix("Gi")), "the driver's heap and Python fit into a task"
    serving = found["serving"]
    cores = int(serving["worker"]["resources"]["limits"]["cpu"]) * serving["worker"]["count"]
    assert serving["replicas"] * serving["cpusPerReplica"] <= cores


def test_every_variable_of_ours_names_a_setting():
    files = [
        *DOCKERFILES,
        COMPOSE,
        CHART / "README.md",
        *CHART.rglob("*.yaml"),
        *CHART.rglob("*.tpl"),
        COMPOSE.with_name("compose.env.example"),
    ]
    found = {name: path.name for path in files for name in re.findall(r"\bPENCHANT_[A-Z0-9_]+\b", path.read_text())}
    assert len(found) > 15
    assert {name: path for name, path in found.items() if unknown(name)} == {}
    assert unknown("PENCHANT_LLM__BASE_URI")
    assert unknown("PENCHANT_STAGES__SERVING__HOST_NAMES")
    assert unknown("PENCHANT_HOUSE")


def test_every_variable_of_airflow_names_an_option():
    folder = find_spec("airflow").submodule_search_locations[0]
    known = yaml.load((Path(folder) / "config_templates" / "config.yml").read_text(), yaml.CSafeLoader)
    options = {f"AIRFLOW__{part}__{name}".upper() for part, found in known.items() for name in found["options"]}
    files = [*DOCKERFILES, COMPOSE, *CHART.rglob("*.yaml")]
    named = {name for path in files for name in re.findall(r"\bAIRFLOW__[A-Z0-9_]+\b", path.read_text())}
    of_provider = {
        name for name in named if name.startswith(("AIRFLOW__KUBERNETES_EXECUTOR__", "AIRFLOW__OPENLINEAGE__"))
    }
    assert len(named) > 15
    assert named - options - of_provider == set()


def test_the_profile_shares_nothing_but_an_object_store(monkeypatch, tmp_path):
    monkeypatch.setenv("PENCHANT_PROFILE", "cluster")
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))
    found = load_settings()
    addresses = [found.state, found.table_uri("shop", "reviews"), found.ray.storage, found.report_uri("a", "b", "c")]
    assert [one for one in addresses if not one.startswith("s3://")] == []
    text = next(path for path in DOCKERFILES if path.stem == "airflow").read_text()
    assert "python -m infra.jars --s3" in text
    assert "--from=build /opt/penchant /opt/penchant" in text
    assert str(found.spark.jars_dir) == "/opt/penchant/jars", "where the image has them"


def test_the_services_of_the_compose_file():
    raw = COMPOSE.read_text()
    found = yaml.safe_load(raw)
    services = found["services"]
    for name, service in services.items():
        one_shot = name in ("store-buckets", "airflow-migration")
        assert one_shot or "healthcheck" in service, name
        assert re.fullmatch(r"[a-z0-9/-]+:(\$\{REVISION:\?\}|v?\d[\w.]*)", service["image"]), service["image"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert set(service.get("depends_on", {})) <= set(services), name
        if "build" in service:
            assert (REPOSITORY / service["build"]["dockerfile"]).exists()
            assert service["build"]["args"]["REVISION"] == "${REVISION:?}"
    assert {service["image"].split(":")[0] for service in services.values()} >= {
        f"penchant-{path.stem}" for path in DOCKERFILES
    }
    needed = set(re.findall(r"\$\{(\w+):\?\}", raw)) - {"REVISION"}
    example = COMPOSE.with_name("compose.env.example").read_text()
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == needed, "each variable, without a value"
    assert "infra/compose.env" in (REPOSITORY / ".gitignore").read_text().split()


def test_an_executor_starts_with_the_variables_that_spark_sets(tmp_path):
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    given = {"MEMORY": "2g", "ID": "7", "CORES": "4", "POD_IP": "10.0.0.1", "POD_NAME": "pod"}
    environment = {f"SPARK_EXECUTOR_{name}": value for name, value in given.items()} | {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SPARK_HOME": "/opt/spark",
        "SPARK_DRIVER_URL": "spark://driver",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "-Dfirst=a b",
        "SPARK_JAVA_OPT_1": "-Dsecond",
    }

    def said(*words, **more):
        command = ["bash", str(IMAGES / "spark-node"), *words]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True, check=True).stdout

    lines = said("executor", SPARK_CLASSPATH="/extra").splitlines()
    assert lines[:6] == ["-Dfirst=a b", "-Dsecond", "-Xms2g", "-Xmx2g", "-cp", "/opt/spark/jars/*:/extra"]
    options = dict(zip(lines[7::2], lines[8::2], strict=True))
    assert (options["--driver-url"], options["--hostname"], options["--podName"]) == (
        "spark://driver",
        "10.0.0.1",
        "pod",
    )
    assert said("echo", "master") == "master\n"


def test_the_registry_reads_addresses_with_percent_signs(tmp_path):
    """Passwords in addresses are escaped so, and such a file takes a percent sign for a reference."""
    from configparser import ConfigParser

    address = "postgresql+psycopg2://penchant:p%40ss@db/mlflow"
    server = tmp_path / "mlflow"
    server.write_text(
        f'#!/bin/sh\ncp "$MLFLOW_AUTH_CONFIG_PATH" {tmp_path}/access.ini; echo "$@" "${{MLFLOW_AUTH_DATABASE_URI-}}"\n'
    )
    server.chmod(0o755)
    names = ("BACKEND_STORE_URI", "ARTIFACTS_DESTINATION", "AUTH_ADMIN_USERNAME", "AUTH_ADMIN_PASSWORD")
    environment = {f"MLFLOW_{name}": "x" for name in names} | {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "TMPDIR": str(tmp_path),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x",
        "MLFLOW_AUTH_DATABASE_URI": address,
    }
    command = ["sh", str(IMAGES / "registry-server")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert address not in done.stdout
    config = ConfigParser()
    config.read(tmp_path / "access.ini")
    assert config["mlflow"]["database_uri"] == address
    assert (tmp_path / "access.ini").stat().st_mode & 0o077 == 0
    del environment["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0
