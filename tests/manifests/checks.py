"""What must hold for the objects that the chart makes."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.manifests.ray_objects import SCHEMAS

CONTAINERS = ("initContainers", "containers")
HERE = ("localhost", "127.0.0.1")


def problems(objects: list[dict[str, Any]], kubernetes: str) -> list[str]:
    """What is wrong with `objects` for a version of Kubernetes such as ``1.37``, a sentence each."""
    found = []
    for one in objects:
        found += [f"{title(one)}: {problem}" for problem in invalid(one, kubernetes)]
    for name, pod in pods(objects):
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod}
        document["metadata"] = {"name": "x", **document["metadata"]}
        found += [f"{name}: {problem}" for problem in [*invalid(document, kubernetes), *unsafe(pod["spec"])]]
    return [*found, *loose_ends(objects)]


def title(one: Mapping[str, Any]) -> str:
    """Kind and name of an object."""
    return f"{one['kind']} {one['metadata']['name']}"


def invalid(one: Mapping[str, Any], kubernetes: str) -> list[str]:
    """Violations of the object's schema; unknown fields are among them."""
    known = SCHEMAS.get((one["apiVersion"], one["kind"]))
    if known is not None:
        validator = jsonschema.Draft202012Validator(known)
        return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(one)]
    try:
        kubernetes_validate.validate(dict(one), kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"there is no schema for {one['apiVersion']} {one['kind']} in Kubernetes {kubernetes}"]
    return []


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Metadata and description of every pod that the objects make or have made, with the name of its place."""
    for one in objects:
        spec = one.get("spec", {})
        if "template" in spec:
            yield title(one), spec["template"]
        cluster = spec.get("rayClusterConfig", spec)
        if "headGroupSpec" in cluster:
            yield f"{title(one)}, head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"{title(one)}, {group['groupName']}", group["template"]
        if one["kind"] == "ConfigMap":
            for name, text in one["data"].items():
                if name.endswith(".yaml"):
                    template = yaml.safe_load(text)
                    yield f"{title(one)}, {name}", {key: template[key] for key in ("metadata", "spec")}


def unsafe(spec: Mapping[str, Any]) -> list[str]:
    """What a pod may do beyond what it needs."""
    found = []
    security = spec.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        found.append("may run as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("no seccomp profile")
    if spec.get("enableServiceLinks", True):
        found.append("the addresses of other services become PENCHANT_* variables of a release of that name")
    for container in (one for kind in CONTAINERS for one in spec.get(kind, [])):
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation", True) or security.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"container {container['name']} keeps privileges")
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            found.append(f"container {container['name']} has the image {container['image']}, which moves")
        names = [one["name"] for one in container.get("env", [])]
        found += [f"{name} is set twice" for name in sorted({one for one in names if names.count(one) > 1})]
        for one in container.get("env", []):
            if re.search(r"(PASSWORD|SECRET|TOKEN|_KEY)$", one["name"]) and "value" in one:
                found.append(f"{one['name']} stands there in plain text")
    return found


def loose_ends(objects: list[dict[str, Any]]) -> list[str]:
    """References within the release that lead nowhere."""
    made = {(one["kind"], one["metadata"]["name"]) for one in objects}
    duplicates = len(objects) - len(made)
    found = [f"{duplicates} objects have the name of another"] if duplicates else []
    labels = []
    for name, pod in pods(objects):
        spec = pod["spec"]
        labels.append(pod["metadata"]["labels"])
        if ("ServiceAccount", spec.get("serviceAccountName")) not in made:
            found.append(f"{name}: there is no service account {spec.get('serviceAccountName')}")
        volumes = {one["name"] for one in spec.get("volumes", [])}
        wanted = {one["configMap"]["name"] for one in spec.get("volumes", []) if "configMap" in one}
        for container in (one for kind in CONTAINERS for one in spec.get(kind, [])):
            mounted = {one["name"] for one in container.get("volumeMounts", [])}
            found += [f"{name}: there is no volume {one}" for one in sorted(mounted - volumes)]
            sources = container.get("envFrom", [])
            wanted |= {one["configMapRef"]["name"] for one in sources if "configMapRef" in one}
        found += [f"{name}: no ConfigMap {one}" for one in sorted(wanted) if ("ConfigMap", one) not in made]
    for one in objects:
        spec = one.get("spec", {})
        wanted = spec.get("selector") if one["kind"] == "Service" else spec.get("selector", {}).get("matchLabels")
        if one["kind"] == "NetworkPolicy":
            wanted = spec["podSelector"]["matchLabels"]
            missed = [pod for pod in labels if not wanted.items() <= pod.items()]
            found += [f"{title(one)} leaves out pods with {pod}" for pod in missed]
        if wanted and not any(wanted.items() <= pod.items() for pod in labels):
            found.append(f"{title(one)} selects no pod")
    return found


def variables(objects: list[dict[str, Any]]) -> dict[str, str]:
    """The values of all environment variables in ConfigMaps and pods; empty where a Secret has the value."""
    found: dict[str, str] = {}
    for one in objects:
        if one["kind"] == "ConfigMap":
            found |= {name: text for name, text in one["data"].items() if not name.endswith(".yaml")}
    for _, pod in pods(objects):
        for container in (one for kind in CONTAINERS for one in pod["spec"].get(kind, [])):
            found |= {one["name"]: one.get("value", "") for one in container.get("env", [])}
    return found


def secrets(objects: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The Secrets that pods need, with their keys; no keys where all become variables."""
    found: dict[str, set[str]] = {}

    def search(one: Any) -> None:
        if isinstance(one, list):
            for inner in one:
                search(inner)
        elif isinstance(one, dict):
            if "secretKeyRef" in one:
                found.setdefault(one["secretKeyRef"]["name"], set()).add(one["secretKeyRef"]["key"])
            if "secretRef" in one:
                found.setdefault(one["secretRef"]["name"], set())
            if "secretName" in one and "items" in one:
                found.setdefault(one["secretName"], set()).update(item["key"] for item in one["items"])
            if "authOptions" in one:
                found.setdefault(one["authOptions"]["secretName"], set()).add("auth_token")
            for inner in one.values():
                search(inner)

    search([pod for _, pod in pods(objects)])
    search([one for one in objects if one["kind"] in ("RayCluster", "RayService")])
    return found


def extra_conf(found: Mapping[str, str]) -> dict[str, str]:
    """The Spark properties that tasks get."""
    return json.loads(found["PENCHANT_SPARK__EXTRA_CONF"])
