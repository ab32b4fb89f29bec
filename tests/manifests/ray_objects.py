"""The fields of KubeRay's objects that the chart uses, and that the operator's release 1.6 knows.

Written by hand from the operator's definitions: a field that is not here fails the check, until somebody has looked it
up. Pods inside are checked as Kubernetes' own.
"""

from typing import Any

COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


METADATA = _object(["name", "labels"], name={"type": "string"}, labels=TEXTS, annotations=TEXTS)
POD = {"type": "object"}
"""Checked by itself."""
CLUSTER = _object(
    ["headGroupSpec"],
    rayVersion={"type": "string"},
    authOptions=_object(
        ["mode"],
        mode={"enum": ["token", "disabled"]},
        secretName={"type": "string"},
        enableK8sTokenAuth={"type": "boolean"},
    ),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_object(
        [],
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources={"type": "object"},
        securityContext={"type": "object"},
    ),
    headGroupSpec=_object(["rayStartParams", "template"], rayStartParams=TEXTS, template=POD),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName={"type": "string"},
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=POD,
        ),
    },
)
SERVICE = _object(
    ["serveConfigV2", "rayClusterConfig"],
    serveConfigV2={"type": "string"},
    rayClusterConfig=CLUSTER,
    upgradeStrategy=_object(["type"], type={"enum": ["NewCluster", "None"]}),
)
SCHEMAS = {
    ("ray.io/v1", kind): _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )
    for kind, spec in {"RayCluster": CLUSTER, "RayService": SERVICE}.items()
}
