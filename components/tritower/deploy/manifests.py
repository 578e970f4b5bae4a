"""The objects of a version and of the whole server: pure functions.

A version is a set of pods of its own, called by the hash of its specification: a Deployment, or an InferenceService of KServe,
which makes one. No label of it ever changes, for KServe copies an InferenceService's labels and annotations into its pods, and
writing one would start them anew. Which set gets requests is said by what stands before them: a Service, or an HTTPRoute.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritower.cluster import names
from tritower.cluster.pods import STORE_KEYS
from tritower.deploy.config import DeployConfig
from tritower.deploy.release import Release

Object = dict[str, Any]
SERVER, SET, VERSION = "tritower.dev/server", "tritower.dev/set", "tritower.dev/version"
"""Labels of pods: the Service's name, the set, the bundle's hash cut to a label."""
COMPONENT = {"app.kubernetes.io/component": "tritower-server"}
"""Label by which the NetworkPolicy knows them."""
CONTAINER, PORT = "kserve-container", 8080
"""KServe's name for the container that serves; both kinds use it."""
TOKEN = "TRITOWER_SERVING_TOKEN"  # noqa: S105 - a variable's name
MODE, SCALER = "serving.kserve.io/deploymentMode", "serving.kserve.io/autoscalerClass"
_MODELS = "/mnt/models"


@dataclass(frozen=True, kw_only=True)
class Set:
    """A version's pods.

    Attributes:
        name: of the set.
        version: the bundle's hash.
        kind: `kserve` or `deployment`.
        objects: as they are sent, the one that makes pods first.
        replicas: pods when it has all requests.
        questions: what it must answer before it has any.
    """

    name: str
    version: str
    kind: str
    objects: tuple[Object, ...]
    replicas: int
    questions: tuple[Mapping[str, Any], ...] = ()

    @property
    def deployment(self) -> str:
        """The name of its Deployment, and of the Service before these pods alone."""
        return f"{self.name}-predictor" if self.kind == "kserve" else self.name


def short(version: str) -> str:
    """A hash as a label, and as people read it."""
    return version[:16]


def of(release: Release, config: DeployConfig, kind: str) -> Set:
    """The set of a release.

    Args:
        release: what serves.
        config: with namespace and image.
        kind: `kserve` or `deployment`.
    """
    pods = _pods(release, config)
    # How many pods there are makes no other version; who scales them does: KServe's annotation is the pods', too.
    scaled: Any = bool(config.max_replicas) and (kind != "kserve" or "external")
    digest = names.spec_hash({"version": release.version, "pods": pods, "kind": kind, "scaled": scaled})[:8]
    name = f"{config.name}-{digest}"
    labels = {**COMPONENT, SERVER: config.name, SET: name, VERSION: short(release.version)}
    make = _inference if kind == "kserve" else _deployment
    return Set(
        name=name, version=release.version, kind=kind, objects=tuple(make(name, labels, pods, config)),
        replicas=config.replicas, questions=tuple(release.questions),
    )  # fmt: skip


def sized(one: Set, count: int) -> list[Object]:
    """The set's objects with so many pods and no autoscaling; with its own number they are what they were."""
    objects = copy.deepcopy(list(one.objects))
    if count == one.replicas:
        return objects
    for item in objects:
        spec = item["spec"]
        if item["kind"] == "InferenceService":
            if "minReplicas" in spec["predictor"]:
                spec["predictor"] |= {"minReplicas": count, "maxReplicas": count}
        elif item["kind"] == "HorizontalPodAutoscaler":
            spec |= {"minReplicas": count, "maxReplicas": count}
        elif item["kind"] == "Deployment" and "replicas" in spec:
            spec["replicas"] = count
    return objects


def most(one: Set) -> int:
    """Up to how many pods its autoscaler may go; its own number without one."""
    specs = [item["spec"].get("predictor", item["spec"]) for item in one.objects]
    return max(int(spec.get("maxReplicas", one.replicas)) for spec in specs)


def shared(config: DeployConfig) -> list[Object]:
    """What all versions have in common beside the Service: the budget of pods that may be taken away at one time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {SERVER: config.name}}}
    return [_object("policy/v1", "PodDisruptionBudget", config.name, {**COMPONENT, SERVER: config.name}, spec, config)]


def service(config: DeployConfig, stable: str, canary: str = "") -> Object:
    """The Service that clients ask: of one set, or of both, where the shares are numbers of pods."""
    selector = {SERVER: config.name} | ({} if canary else {SET: stable})
    return _service(config.name, selector, config)


def route(config: DeployConfig, weights: Mapping[str, int]) -> Object:
    """An HTTPRoute. Args: weights: Service -> percent of requests."""
    space, _, gateway = config.gateway.rpartition("/")
    parent = {"name": gateway} | ({"namespace": space} if space else {})
    backends = [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]
    spec = {"parentRefs": [parent], "rules": [{"backendRefs": backends}]}
    spec |= {"hostnames": list(config.hostnames)} if config.hostnames else {}
    labels = {**COMPONENT, SERVER: config.name}
    return _object("gateway.networking.k8s.io/v1", "HTTPRoute", config.name, labels, spec, config)


def serverless(release: Release, config: DeployConfig) -> Object:
    """One InferenceService for KServe's mode with Knative, which shares requests between its last two revisions by itself."""
    spec = _pods(release, config)
    for hook in ("terminationGracePeriodSeconds", "topologySpreadConstraints"):  # fields that Knative refuses
        spec.pop(hook, None)
    (container,) = spec["containers"]
    for field in ("lifecycle", "startupProbe"):
        container.pop(field)
    predictor = {"minReplicas": config.replicas, "maxReplicas": config.max_replicas or config.replicas, **spec}
    predictor |= {"canaryTrafficPercent": config.canary_percent} if config.canary_percent else {}
    labels = {**COMPONENT, SERVER: config.name, VERSION: short(release.version)}
    made = _object("serving.kserve.io/v1beta1", "InferenceService", config.name, labels, {"predictor": predictor}, config)
    made["metadata"]["annotations"] = {MODE: "Serverless"}
    return made


def _pods(release: Release, config: DeployConfig) -> Object:
    """The specification of the pods, without labels."""
    knobs = json.dumps({"poll_s": 0, **config.serve}, sort_keys=True)
    place = _MODELS if config.storage_initializer else release.bundle
    env = [{"name": key, "value": value} for key, value in {"TMPDIR": "/tmp", **config.environment}.items()]  # noqa: S108
    if config.storage_initializer:
        env.append({"name": "STORAGE_URI", "value": release.bundle})
    env += [_secret(config.store_secret, key, name) for key, name in STORE_KEYS.items() if config.store_secret]
    env += [_secret(config.token_secret, "token", TOKEN, optional=False)] if config.token_secret else []
    container = {
        "name": CONTAINER,
        "image": config.image,
        "command": ["python3", "-m", "tritower.serving", "serve"],
        "args": [f"--bundle={place}", "--host", "0.0.0.0", "--port", str(PORT), "--config", knobs],  # noqa: S104
        "env": env,
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        # Nothing listens before the bundle is whole and warm, however long that takes: the deployer keeps the time.
        "readinessProbe": {**_asked("ready"), "periodSeconds": 2, "timeoutSeconds": 2},
        "startupProbe": {**_asked("live"), "periodSeconds": 5, "failureThreshold": 1 + int(config.start_timeout_s / 5)},
        "livenessProbe": {**_asked("live"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": config.pre_stop_s}}},
        "resources": {
            "requests": {"cpu": config.cpu, "memory": config.memory},
            "limits": {"cpu": config.cpu_limit, "memory": config.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - a path in the pod
    }  # fmt: skip
    security: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    security |= {"runAsUser": config.run_as_user, "fsGroup": 0} if config.run_as_user >= 0 else {}
    spec: Object = {
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": config.grace_s,
        "securityContext": security,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": config.disk}}],
    }
    optional = {
        "nodeSelector": dict(config.node_selector),
        "tolerations": list(config.tolerations),
        "priorityClassName": config.priority_class,
        "imagePullSecrets": [{"name": name} for name in config.image_pull_secrets],
    }
    return spec | {key: value for key, value in optional.items() if value}


def _asked(word: str) -> Object:
    return {"httpGet": {"path": f"/v2/health/{word}", "port": PORT}}


def _secret(name: str, key: str, variable: str, *, optional: bool = True) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": optional}}}


def _deployment(name: str, labels: Mapping[str, str], pods: Object, config: DeployConfig) -> list[Object]:
    selector = {SET: name}
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    spread |= {"labelSelector": {"matchLabels": selector}}
    spec: Object = {
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": {"labels": dict(labels)}, "spec": {**pods, "topologySpreadConstraints": [spread]}},
    }
    if not config.max_replicas:  # the autoscaler's field otherwise
        spec["replicas"] = config.replicas
    made = [_object("apps/v1", "Deployment", name, labels, spec, config), _service(name, selector, config)]
    return made + ([_scaler(name, name, labels, config)] if config.max_replicas else [])


def _scaler(name: str, deployment: str, labels: Mapping[str, str], config: DeployConfig) -> Object:
    """The autoscaler of a set's Deployment."""
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": config.target_cpu_percent}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment}
    bounds: Object = {"minReplicas": config.replicas, "maxReplicas": config.max_replicas, "scaleTargetRef": target}
    bounds |= {"metrics": [{"type": "Resource", "resource": cpu}]}
    # A new version starts with as many pods as the one before had at last, and has no load to show for them yet.
    bounds |= {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}
    return _object("autoscaling/v2", "HorizontalPodAutoscaler", name, labels, bounds, config)


def _inference(name: str, labels: Mapping[str, str], pods: Object, config: DeployConfig) -> list[Object]:
    # KServe's own autoscaler is written whole whenever KServe looks, `behavior` empty: nothing would hold the pods that a new
    # version starts with. With the class `external` KServe makes none, and leaves the number to whoever sets it.
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    predictor: Object = {} if config.max_replicas else {"minReplicas": config.replicas, "maxReplicas": config.replicas}
    predictor |= {"deploymentStrategy": strategy, **pods}
    made = _object("serving.kserve.io/v1beta1", "InferenceService", name, labels, {"predictor": predictor}, config)
    made["metadata"]["annotations"] = {MODE: "Standard", SCALER: "external" if config.max_replicas else "none"}
    return [made] + ([_scaler(name, f"{name}-predictor", labels, config)] if config.max_replicas else [])


def _service(name: str, selector: Mapping[str, str], config: DeployConfig) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}]
    spec = {"selector": dict(selector), "ports": ports}
    return _object("v1", "Service", name, {**COMPONENT, SERVER: config.name}, spec, config)


def _object(version: str, kind: str, name: str, labels: Mapping[str, str], spec: Object, config: DeployConfig) -> Object:
    meta = {"name": name, "namespace": config.namespace, "labels": dict(labels)}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}
