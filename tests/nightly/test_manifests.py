"""The Helm chart, rendered in every size for several versions of Kubernetes; helm is built if it is not there."""

import copy
import dataclasses
import json
from importlib import import_module

import pytest
import yaml

from infra.settings import REPOSITORY, Settings
from ray_jobs.serving.settings import ServingSettings
from tests.manifests import __main__ as manifests
from tests.manifests.checks import extra_conf, pods, problems, secrets, variables
from tests.manifests.helm import as_values, render


@pytest.mark.parametrize("kubernetes", manifests.VERSIONS)
@pytest.mark.parametrize("way", manifests.WAYS)
@pytest.mark.parametrize("size", manifests.SIZES)
def test_every_object_is_valid(size, way, kubernetes):
    objects, found = manifests.check(size, way, kubernetes)
    assert found == []
    kinds = {one["kind"] for one in objects}
    assert {"Deployment", "Job", "NetworkPolicy", "RayCluster", "Role"} <= kinds | (
        {"NetworkPolicy"} if way == "own registry" else set()
    )
    assert ("RayService" in kinds) == (way == "all")


@pytest.fixture(scope="module")
def objects():
    return render(*manifests.arguments("m", "all"), kubernetes="1.37.0")


def _deployment(objects):
    return next(one for one in objects if one["kind"] == "Deployment")["spec"]


def _cluster(objects):
    return next(one for one in objects if one["kind"] == "RayCluster")["spec"]


def _executor(objects, change):
    made = next(one for one in objects if one["metadata"]["name"] == "penchant-pods")
    template = yaml.safe_load(made["data"]["executor.yaml"])
    change(template["spec"])
    made["data"]["executor.yaml"] = yaml.safe_dump(template)


WRONG = {
    "an unknown field": (lambda all_: _deployment(all_).update(replica=1), "replica"),
    "a wrong type": (lambda all_: _deployment(all_).update(replicas="two"), "replicas"),
    "an unknown field of Ray's": (lambda all_: _cluster(all_).update(autoscaling=True), "autoscaling"),
    "an unknown field of a pod of Ray's": (
        lambda all_: _cluster(all_)["headGroupSpec"]["template"]["spec"].update(serviceAccount_name="x"),
        "serviceAccount_name",
    ),
    "a wrong type in an executor": (
        lambda all_: _executor(all_, lambda spec: spec.update(tolerations={})),
        "tolerations",
    ),
    "root": (lambda all_: _executor(all_, lambda spec: spec["securityContext"].pop("runAsUser")), "root"),
    "an image that moves": (
        lambda all_: _executor(all_, lambda spec: spec["containers"][0].update(image="a/b:latest")),
        "which moves",
    ),
    "privileges": (
        lambda all_: _executor(all_, lambda spec: spec["containers"][0].pop("securityContext")),
        "keeps privileges",
    ),
    "a password in plain text": (
        lambda all_: _executor(
            all_, lambda spec: spec["containers"][0].update(env=[{"name": "A_PASSWORD", "value": "x"}])
        ),
        "plain text",
    ),
    "an account that is not there": (
        lambda all_: _executor(all_, lambda spec: spec.update(serviceAccountName="x")),
        "no service account x",
    ),
    "a volume that is not there": (
        lambda all_: _executor(all_, lambda spec: spec.pop("volumes")),
        "no volume scratch",
    ),
    "settings that are not there": (
        lambda all_: all_.remove(next(one for one in all_ if one["metadata"]["name"] == "penchant-settings")),
        "no ConfigMap penchant-settings",
    ),
    "a service without pods": (
        lambda all_: next(one for one in all_ if one["kind"] == "Service")["spec"].update(selector={"a": "b"}),
        "selects no pod",
    ),
    "a pod outside the network policy": (
        lambda all_: _cluster(all_)["headGroupSpec"]["template"]["metadata"]["labels"].pop(
            "app.kubernetes.io/instance"
        ),
        "leaves out pods",
    ),
    "a name given twice": (lambda all_: all_.append(copy.deepcopy(all_[0])), "name of another"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_check_finds(objects, what):
    change, named = WRONG[what]
    broken = copy.deepcopy(objects)
    change(broken)
    found = problems(broken, "1.37")
    assert any(named in one for one in found), found


def test_engines_get_settings_that_load(objects, monkeypatch, tmp_path):
    given = variables(objects)
    for name, value in given.items():
        if name.startswith("PENCHANT_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    found = Settings()
    assert (found.spark.master, found.ray.workers, found.ray.use_gpu) == (
        "k8s://https://kubernetes.default.svc:443",
        4,
        True,
    )
    conf = extra_conf(given)
    assert found.spark.extra_conf == conf
    assert conf["spark.kubernetes.executor.podTemplateFile"] == "/opt/pods/executor.yaml"
    serving = ServingSettings(hosts=tuple(json.loads(given["PENCHANT_STAGES__SERVING__HOSTS"])))
    assert "penchant-serving-serve-svc" in serving.hosts
    assert {field.name for field in dataclasses.fields(ServingSettings)} >= {
        name.removeprefix("PENCHANT_STAGES__SERVING__").lower() for name in given if "__SERVING__" in name
    }


def test_airflow_reads_its_connections(objects):
    from airflow.models.connection import Connection

    given = variables(objects)
    spark = Connection.from_json(given["AIRFLOW_CONN_SPARK_DEFAULT"])
    assert (spark.conn_type, spark.host, spark.port) == ("spark", "k8s://https://kubernetes.default.svc", 443)
    assert spark.extra_dejson == {"deploy-mode": "client", "namespace": "ml"}
    assert Connection.from_json(given["AIRFLOW_CONN_STORE"]).conn_type == "aws"
    known = (REPOSITORY / "infra" / "kubernetes" / "README.md").read_text()
    assert [name for name in secrets(objects) if f"`{name}`" not in known] == []
    missing = {f"{name}: {key}" for name, keys in secrets(objects).items() for key in keys if f"`{key}`" not in known}
    assert missing == set(), "the README says what each Secret has to contain"


def test_serve_accepts_its_configuration(objects):
    from ray.serve.schema import ServeDeploySchema

    text = next(one for one in objects if one["kind"] == "RayService")["spec"]["serveConfigV2"]
    [application] = ServeDeploySchema(**yaml.safe_load(text)).applications
    module, _, name = application.import_path.partition(":")
    assert callable(getattr(import_module(module), name))
    assert application.args == {"dataset": "shop"}
    module, _, name = variables(objects)["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_values_from_a_user_get_to_pods(tmp_path):
    given = {
        "images": {"tag": "f00d", "registry": "registry.example.org/team"},
        "spark": {"conf": {"spark.task.maxFailures": "8", "spark.driver.port": "9"}},
        "settings": {"PENCHANT_LLM__CONCURRENCY": 7},
        "airflow": {"task": {"nodeSelector": {"pool": "small"}}},
    }
    objects = render(as_values(given, tmp_path / "values.json"), kubernetes="1.34.0")
    assert problems(objects, "1.34") == []
    conf = extra_conf(variables(objects))
    assert (conf["spark.task.maxFailures"], conf["spark.driver.port"]) == ("8", "9")
    assert variables(objects)["PENCHANT_LLM__CONCURRENCY"] == "7"
    found = dict(pods(objects))
    assert found["ConfigMap penchant-pods, task.yaml"]["spec"]["nodeSelector"] == {"pool": "small"}
    images = {container["image"] for pod in found.values() for container in pod["spec"]["containers"]}
    assert images >= {
        "registry.example.org/team/penchant-airflow:f00d",
        "registry.example.org/team/penchant-ray-gpu:f00d",
    }
    with pytest.raises(ValueError, match="images/tag"):
        render(kubernetes="1.34.0")
    with pytest.raises(ValueError, match="kubeVersion"):
        render("--set=images.tag=f00d", kubernetes="1.25.0")
