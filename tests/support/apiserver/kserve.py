"""KServe's part (0.20, mode Standard): an InferenceService becomes a Deployment, a Service and an autoscaler.

Its status is what the real one says of a rolling update, that is, little: Ready stays True through a good and a bad one,
observedGeneration is the Deployment's, and trouble with pods shows when the Deployment gives up. The storage initializer is a
program that the tests give. Not played: models with a `model` section, modes with Knative, ingress.
"""

import copy
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import answers, kinds, resources
from tests.support.apiserver.pytorchjob import owner_of
from tests.support.apiserver.store import now

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
MODE, SCALER = "serving.kserve.io/deploymentMode", "serving.kserve.io/autoscalerClass"
FINALIZER, MARK = "inferenceservice.finalizers", "serving.kserve.io/inferenceservice"
WEBHOOK = "inferenceservice.kserve-webhook-server.validator"
POD_WEBHOOK = "inferenceservice.kserve-webhook-server.pod-mutator"
INITIALIZER = "kserve/storage-initializer:v0.20.0"
_OWN = (
    "minReplicas", "maxReplicas", "labels", "annotations", "deploymentStrategy", "canaryTrafficPercent", "name", "scaleMetric",
    "scaleTarget", "scaleMetricType", "timeout", "containerConcurrency", "batcher", "logger", "autoScaling",
)  # fmt: skip
"""Fields of a predictor that are none of a pod's."""


def check(cluster: "Cluster", item: Object) -> None:
    """Raises: Refused: the webhook is down, or finds a fault."""
    if "kserve" in cluster.down:
        raise answers.webhook_down(
            WEBHOOK, "kserve-webhook-server-service", "validate-serving-kserve-io-v1beta1-inferenceservice"
        )
    if "canary" in item["spec"] and item["spec"]["predictor"].get("containers"):
        raise answers.denied(WEBHOOK, "spec.canary requires a stable predictor with a model")


def check_pod(cluster: "Cluster", pod: Object) -> None:
    """Raises: Refused: no pod of a predictor is made while the webhook is down."""
    if "kserve" in cluster.down and MARK in (pod["metadata"].get("labels") or {}):
        raise answers.webhook_down(POD_WEBHOOK, "kserve-webhook-server-service", "mutate-pods")


def injected(pod: Object) -> Object:
    """A predictor's pod as the webhook makes it: what STORAGE_URI names is fetched before its container starts."""
    if MARK not in (pod["metadata"].get("labels") or {}):
        return pod
    pod = copy.deepcopy(pod)
    for one in (one for container in pod["spec"]["containers"] for one in container.get("env", [])):
        if one["name"] == "STORAGE_URI" and not pod["spec"].get("initContainers"):
            fetch = {"name": "storage-initializer", "image": INITIALIZER, "args": [one["value"], "/mnt/models"]}
            pod["spec"]["initContainers"] = [fetch | {"terminationMessagePolicy": "FallbackToLogsOnError"}]
            one["value"] = "/mnt/models"
    return pod


def defaulted(item: Object) -> Object:
    """What the webhook writes."""
    item = copy.deepcopy(item)
    notes = item["metadata"].setdefault("annotations", {})
    if notes.get(MODE) == "RawDeployment":
        notes[MODE] = "Standard"
    for container in item["spec"]["predictor"].get("containers", []):
        limits = {"cpu": "1", "memory": "2Gi"}
        own = container.setdefault("resources", {})
        for side in ("limits", "requests"):
            own[side] = limits | own.get(side, {})
        port = container.get("ports", [{"containerPort": 8080}])[0]["containerPort"]
        container.setdefault("readinessProbe", {"tcpSocket": {"port": port}, "periodSeconds": 10})
    return item


class Operator:
    """Looks at all InferenceServices in turn."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._store = cluster, cluster.store

    def step(self) -> None:
        """Once through everything."""
        if "kserve" in self._cluster.down:
            return
        for one in self._store.all(kinds.INFERENCE):
            if "deletionTimestamp" in one["metadata"]:
                self._end(one)
            else:
                self._reconcile(one)

    def _end(self, item: Object) -> None:
        name, home = f"{item['metadata']['name']}-predictor", item["metadata"]["namespace"]
        for kind in (kinds.SCALER, kinds.DEPLOYMENT, kinds.SERVICE):
            if self._store.get(kind, home, name):
                resources.delete(self._cluster, kind, home, name, {})
        self._store.edit(kinds.INFERENCE, item, lambda one: one["metadata"].update(finalizers=[]))

    def _reconcile(self, item: Object) -> None:
        if FINALIZER not in item["metadata"].get("finalizers", []):
            self._store.edit(kinds.INFERENCE, item, lambda one: one["metadata"].update(finalizers=[FINALIZER]))
        name, home = f"{item['metadata']['name']}-predictor", item["metadata"]["namespace"]
        predictor, notes = item["spec"]["predictor"], item["metadata"].get("annotations") or {}
        least, scaler = predictor.get("minReplicas", 1), notes.get(SCALER, "hpa")
        meta = {"name": name, "ownerReferences": [owner_of(item)]}
        template = _template(item)
        found = self._store.get(kinds.DEPLOYMENT, home, name)
        if found is None:
            strategy = predictor.get("deploymentStrategy") or {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            }
            spec = {
                "replicas": least if scaler == "none" else 1,  # an autoscaler's business else
                "selector": {"matchLabels": {"app": f"isvc.{name}"}},
                "template": template, "strategy": strategy, "progressDeadlineSeconds": 600,
            }  # fmt: skip
            found = self._store.create(kinds.DEPLOYMENT, home, {"metadata": meta, "spec": spec})
        elif found["spec"]["template"] != template or (scaler == "none" and found["spec"]["replicas"] != least):
            more = {"replicas": least} if scaler == "none" else {}
            self._store.edit(kinds.DEPLOYMENT, found, lambda one: one["spec"].update(template=template, **more))
        if self._store.get(kinds.SERVICE, home, name) is None:
            port = (template["spec"]["containers"][0].get("ports") or [{"containerPort": 8080}])[0]["containerPort"]
            spec = {"selector": {"app": f"isvc.{name}"}, "ports": [{"name": "http", "port": 80, "targetPort": port}]}
            self._store.create(kinds.SERVICE, home, {"metadata": meta, "spec": spec})
        self._scaler(item, meta, home, scaler)
        self._tell(item, found, home)

    def _scaler(self, item: Object, meta: Object, home: str, scaler: str) -> None:
        """Its own autoscaler is written whole whenever it is another, `behavior` empty, and deleted where another class is
        asked for; one that somebody else made stays."""
        found = self._store.get(kinds.SCALER, home, meta["name"])
        if scaler in ("external", "none"):
            if found and found["metadata"].get("ownerReferences") == [owner_of(item)]:
                resources.delete(self._cluster, kinds.SCALER, home, meta["name"], {})
            return
        predictor = item["spec"]["predictor"]
        least = max(1, predictor.get("minReplicas", 1))
        target = {"type": "Utilization", "averageUtilization": predictor.get("scaleTarget", 80)}
        metric = {"type": "Resource", "resource": {"name": predictor.get("scaleMetric", "cpu"), "target": target}}
        spec = {
            "minReplicas": least, "maxReplicas": max(least, predictor.get("maxReplicas") or 0), "metrics": [metric],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"]}, "behavior": {},
        }  # fmt: skip
        if found is None:
            self._store.create(kinds.SCALER, home, {"metadata": meta, "spec": spec})
        elif found["spec"] != spec:
            self._store.edit(kinds.SCALER, found, lambda one: one.update(spec=spec))

    def _tell(self, item: Object, deployment: Object, home: str) -> None:
        conditions = {one["type"]: one for one in (deployment.get("status") or {}).get("conditions", [])}
        available, progressing = conditions.get("Available"), conditions.get("Progressing")
        predictor = {"type": "PredictorReady", "status": "False"}
        if available and progressing:
            failed = progressing["status"] == "False"
            is_ready = available["status"] == "True" and not failed
            done = is_ready and progressing["reason"] == "NewReplicaSetAvailable"
            reason = progressing["reason"] if failed or done else available["reason"]
            if available["status"] == "False":
                reason = available["reason"]
            predictor |= {"status": "True" if is_ready else "False", "reason": reason, "message": progressing["message"]}
        ready = {
            key: value for key, value in predictor.items() if key in ("status", "reason") and predictor["status"] == "False"
        }
        found = [
            predictor,
            {"type": "IngressReady", "status": "True"},
            {"type": "Ready", "status": predictor["status"]} | ready,
        ]
        old = {one["type"]: one for one in (item.get("status") or {}).get("conditions", [])}
        for one in found:
            same = old.get(one["type"], {}).get("status") == one["status"]
            one["lastTransitionTime"] = old[one["type"]]["lastTransitionTime"] if same else now()
        name, is_true = item["metadata"]["name"], predictor["status"] == "True"
        status = {
            "address": {"url": f"http://{name}-predictor.{home}.svc.cluster.local"},
            "url": f"http://{name}-{home}.example.com", "conditions": found, "deploymentMode": "Standard",
            "modelStatus": {
                "transitionStatus": "UpToDate" if is_true else "InProgress",
                "states": {"activeModelState": "Loaded" * is_true, "targetModelState": "Loaded" if is_true else "Pending"},
            },
        }  # fmt: skip
        seen = (deployment.get("status") or {}).get("observedGeneration")
        status |= {"observedGeneration": seen} if seen else {}
        self._store.edit(kinds.INFERENCE, item, lambda one: one.update(status=status))


def _template(item: Object) -> Object:
    """The pods: the InferenceService's labels and annotations are theirs, too."""
    meta, predictor = item["metadata"], copy.deepcopy(item["spec"]["predictor"])
    name = meta["name"]
    labels = (meta.get("labels") or {}) | (predictor.get("labels") or {})
    labels |= {"app": f"isvc.{name}-predictor", "component": "predictor", MARK: name}
    notes = (meta.get("annotations") or {}) | (predictor.get("annotations") or {})
    notes = {key: value for key, value in notes.items() if not key.startswith("kubectl.kubernetes.io/")}
    spec = {key: value for key, value in predictor.items() if key not in _OWN}
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for container in spec["containers"]:
        container["env"] = [*container.get("env", []), {"name": "INFERENCE_SERVICE_NAME", "value": name}]
        container.setdefault("imagePullPolicy", "IfNotPresent")
    return {"metadata": {"labels": labels, "annotations": notes}, "spec": spec}
