"""What is refused beyond the schema: the operators' webhooks, quota, pod security; and the defaults that are filled in."""

import base64
import re
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import answers, katib_rules, kinds, kserve, quantities, trials
from tests.support.apiserver.kinds import Kind

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]

PYTORCHJOB_WEBHOOK = "validator.pytorchjob.training-operator.kubeflow.org"
TRAINJOB_WEBHOOK = "validator.trainjob.trainer.kubeflow.org"
_DNS_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
    f"with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{_DNS_LABEL}')"
)


def check(cluster: "Cluster", kind: Kind, namespace: str, item: Object, old: Object | None = None) -> None:
    """Raises: Refused: 403, 400, 422, 500 as the real ones."""
    if kind is kinds.POD and old is None:
        kserve.check_pod(cluster, item)
        check_pod(cluster, namespace, item)
    if kind is kinds.INFERENCE:
        kserve.check(cluster, item)
    if kind is kinds.DEPLOYMENT:
        _check_deployment(item, old)
    if kind is kinds.PYTORCHJOB:
        if "training-operator" in cluster.down:
            raise answers.webhook_down(PYTORCHJOB_WEBHOOK, "training-operator", "validate-kubeflow-org-v1-pytorchjob")
        if why := pytorchjob_faults(item):
            raise answers.denied(PYTORCHJOB_WEBHOOK, why[0] if len(why) == 1 else f"[{', '.join(why)}]")
    if kind is kinds.TRAINJOB and old is None:
        _check_trainjob(cluster, namespace, item)
    if kind is kinds.EXPERIMENT:
        katib_rules.check(cluster, namespace, item, old)


def _check_deployment(item: Object, old: Object | None) -> None:
    name, selector = item["metadata"]["name"], item["spec"]["selector"]
    if old and old["spec"]["selector"] != selector:
        cause = ("spec.selector", "FieldValueInvalid", f"Invalid value: {selector}: field is immutable")
        raise answers.invalid("Deployment", "apps", name, [cause])
    labels = item["spec"]["template"].get("metadata", {}).get("labels") or {}
    if not selector.get("matchLabels", {}).items() <= labels.items():
        cause = ("spec.template.metadata.labels", "FieldValueInvalid", f"Invalid value: {labels}: `selector` does not match")
        raise answers.invalid("Deployment", "apps", name, [cause])


def _check_trainjob(cluster: "Cluster", namespace: str, job: Object) -> None:
    ref = job["spec"]["runtimeRef"]
    if ref.get("kind") != "TrainingRuntime" or cluster.store.get(kinds.RUNTIME, namespace, ref["name"]) is None:
        why = "specified trainingRuntime must be created before the TrainJob is created"
        raise answers.denied(TRAINJOB_WEBHOOK, f'spec.runtimeRef: Invalid value: "{ref["name"]}": not found: {why}')
    names = [one["name"] for one in (job["spec"].get("trainer") or {}).get("env", [])]
    if bad := [name for name in names if name.startswith("PET_")]:
        raise answers.denied(TRAINJOB_WEBHOOK, f"spec.trainer.env: Invalid value: {bad}: reserved")


def pytorchjob_faults(job: Object) -> list[str]:
    """What the training operator's webhook finds."""
    name = job["metadata"].get("name", "")
    found = []
    if len(name) > 63:
        found.append(f'metadata.name: Invalid value: "{name}": should match: must be no more than 63 characters')
    elif name and not re.fullmatch(_DNS_LABEL, name):
        found.append(f'metadata.name: Invalid value: "{name}": should match: {_DNS_LABEL_RULE}')
    spec = job.get("spec") or {}
    owner = (spec.get("runPolicy") or {}).get("managedBy")
    known = ("kueue.x-k8s.io/multikueue", "kubeflow.org/training-operator")
    if owner not in (None, *known):
        shown = ", ".join(f'"{one}"' for one in known)
        found.append(f'spec.runPolicy.managedBy: Unsupported value: "{owner}": supported values: {shown}')
    replicas = spec.get("pytorchReplicaSpecs")
    if not replicas:
        return [*found, "spec.pytorchReplicaSpecs: Required value: must be required"]
    for role, one in replicas.items():
        at = f"spec.pytorchReplicaSpecs[{role}]"
        if role not in ("Master", "Worker"):
            found.append(f'{at}: Unsupported value: "{role}": supported values: "Master", "Worker"')
        if role == "Master" and one.get("replicas", 1) != 1:
            found.append(f"{at}.replicas: Forbidden: must be 1")
        containers = (one.get("template", {}).get("spec") or {}).get("containers") or []
        where = f"{at}.template.spec.containers"
        if not containers:
            found.append(f"{where}: Required value: must be specified")
        found += [
            f"{where}[{i}].image: Required value: must be required" for i, c in enumerate(containers) if not c.get("image")
        ]
        if all(container.get("name") != "pytorch" for container in containers):
            found.append(f"{where}: Required value: must have at least one container with name pytorch")
    return found


def check_pod(cluster: "Cluster", namespace: str, pod: Object) -> None:
    """A pod as the API server takes it: its volumes, the namespace's pod security and its quotas. Raises: Refused: 422, 403."""
    name, spec = pod["metadata"].get("name", ""), pod.get("spec") or {}
    account = spec.get("serviceAccountName") or "default"
    if cluster.store.get(kinds.ACCOUNT, namespace, account) is None:
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise answers.forbidden_pod(name, why)
    causes = []
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for index, container in enumerate(spec.get("containers", [])):
        for at, mount in enumerate(container.get("volumeMounts", [])):
            if mount["name"] not in volumes:
                field = f"spec.containers[{index}].volumeMounts[{at}].name"
                causes.append((field, "FieldValueNotFound", f'Not found: "{mount["name"]}"'))
    if causes:
        raise answers.invalid("Pod", "", name, causes)
    home = cluster.store.get(kinds.NAMESPACE, "", namespace) or {"metadata": {}}
    is_restricted = (home["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce") == "restricted"
    if is_restricted and (faults := _unrestricted(spec)):
        raise answers.forbidden_pod(name, f'violates PodSecurity "restricted:latest": {", ".join(faults)}')
    _check_quota(cluster, namespace, name, spec)


def _unrestricted(spec: Object) -> list[str]:
    whole = spec.get("securityContext") or {}
    found = []
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own, name = container.get("securityContext") or {}, container["name"]
        if own.get("allowPrivilegeEscalation") is not False:
            rule = f'(container "{name}" must set securityContext.allowPrivilegeEscalation=false)'
            found.append(f"allowPrivilegeEscalation != false {rule}")
        if "ALL" not in (own.get("capabilities") or {}).get("drop", []):
            found.append(f'unrestricted capabilities (container "{name}" must set securityContext.capabilities.drop=["ALL"])')
        if (whole | own).get("runAsNonRoot") is not True:
            found.append(f'runAsNonRoot != true (pod or container "{name}" must set securityContext.runAsNonRoot=true)')
        if ((whole | own).get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            rule = f'pod or container "{name}" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
            found.append(f"seccompProfile ({rule})")
    return found


def _check_quota(cluster: "Cluster", namespace: str, name: str, spec: Object) -> None:
    pods = [
        pod
        for pod in cluster.store.all(kinds.POD, namespace)
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]
    for quota in cluster.store.all(kinds.QUOTA, namespace):
        for what, limit in quota["spec"]["hard"].items():
            resource = what.removeprefix("requests.")
            asked = quantities.of_pod(spec, resource) if what != "pods" else 1
            used = sum(quantities.of_pod(pod["spec"], resource) if what != "pods" else 1 for pod in pods)
            if asked and used + asked > quantities.number(limit):
                texts = [f"{what}={quantities.text(value)}" for value in (asked, used)]
                why = f"exceeded quota: {quota['metadata']['name']}, requested: {texts[0]}, used: {texts[1]}"
                raise answers.forbidden_pod(name, f"{why}, limited: {what}={limit}")


def with_data(secret: Object) -> Object:
    """A Secret with its stringData in data."""
    plain = secret.pop("stringData", {})
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    return secret | {"type": secret.get("type", "Opaque"), "data": (secret.get("data") or {}) | encoded}


def with_defaults(cluster: "Cluster", kind: Kind, namespace: str, item: Object) -> Object:
    """What the server and the webhooks fill in."""
    if kind is kinds.EXPERIMENT:
        return katib_rules.defaulted(item)
    if kind is kinds.INFERENCE:
        return kserve.defaulted(item)
    if kind is kinds.POD:
        if "katib" not in cluster.down:
            item = trials.injected(cluster, namespace, item)
        item = kserve.injected(item)
        defaults = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "serviceAccountName": "default"}
        return item | {"spec": defaults | item["spec"], "status": {"phase": "Pending"}}
    return item
