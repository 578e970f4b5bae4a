"""What Katib's webhooks (0.19) refuse, with code 400 and no reason."""

import json
import re
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import answers, conditions, kinds

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
VALIDATOR, DEFAULTER = "validator.experiment.katib.kubeflow.org", "defaulter.experiment.katib.kubeflow.org"
LABEL = ("katib.kubeflow.org/metrics-collector-injection", "enabled")
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.(\w+)\}")
_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?)"
_KNOWN_JOBS = ("Job", "PyTorchJob", "TFJob", "MPIJob", "XGBoostJob")


def check(cluster: "Cluster", namespace: str, item: Object, old: Object | None) -> None:
    """Raises: Refused: 400; 500 while Katib is down."""
    if "katib" in cluster.down:
        raise answers.webhook_down(DEFAULTER, "katib-controller", "mutate-experiment")
    home = cluster.store.get(kinds.NAMESPACE, "", namespace) or {"metadata": {}}
    name = item["metadata"].get("name", "")
    if (home["metadata"].get("labels") or {}).get(LABEL[0]) != LABEL[1]:
        why = (
            f'Cannot create the Experiment "{name}" in namespace "{namespace}": the namespace lacks label "{": ".join(LABEL)}"'
        )
        raise answers.denied(VALIDATOR, why, code=400, reason="")
    found = _changed(item, old) if old else []
    found += _faults(cluster, item) if not old or item.get("spec") != old.get("spec") else []
    if found:
        raise answers.denied(VALIDATOR, found[0] if len(found) == 1 else f"[{', '.join(found)}]", code=400, reason="")


def check_text(item: Object) -> None:
    """What the defaulting webhook cannot read. Raises: Refused: 400."""
    for parameter in item.get("spec", {}).get("parameters", []):
        for field in ("min", "max", "step"):
            value = (parameter.get("feasibleSpace") or {}).get(field, "")
            if not isinstance(value, str):
                why = f"Go struct field FeasibleSpace.spec.parameters.feasibleSpace.{field} of type string"
                raise answers.denied(DEFAULTER, f"json: cannot unmarshal number into {why}", code=400, reason="")


def defaulted(item: Object) -> Object:
    """An Experiment with what the defaulting webhook fills in."""
    spec = item["spec"]
    objective, template = spec.get("objective", {}), spec.get("trialTemplate", {})
    names = [objective.get("objectiveMetricName"), *objective.get("additionalMetricNames", [])]
    best = "max" if objective.get("type") == "maximize" else "min"
    objective.setdefault("metricStrategies", [{"name": name, "value": best} for name in names])
    spec.setdefault("resumePolicy", "Never")
    spec.setdefault("parallelTrialCount", 3)
    if (template.get("trialSpec") or {}).get("kind") in _KNOWN_JOBS:
        for field, type_ in (("successCondition", "Succeeded"), ("failureCondition", "Failed")):
            template.setdefault(field, f'status.conditions.#(type=="{type_}")#|#(status=="True")#')
        template.setdefault("primaryPodLabels", {"training.kubeflow.org/job-role": "master"})
    for parameter in spec.get("parameters", []):
        if "min" in parameter.get("feasibleSpace", {}):
            parameter["feasibleSpace"].setdefault("distribution", "uniform")
    return item


def _changed(item: Object, old: Object) -> list[str]:
    """A changed spec after the end."""
    status = old.get("status", {})
    done = conditions.has(status, "Succeeded") or conditions.has(status, "Failed")
    if item.get("spec") == old.get("spec") or not done or old["spec"].get("resumePolicy") != "Never":
        return []
    why = (
        "Experiment can be restarted if it is in succeeded state by reaching max trials and spec.resumePolicy = LongRunning or "
        "spec.resumePolicy = FromVolume, when experiment is completed"
    )
    found = [f'spec.resumePolicy: Invalid value: "Never": {why}']
    editable = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")
    rest = [{key: value for key, value in one["spec"].items() if key not in editable} for one in (item, old)]
    if item["spec"].get("maxTrialCount", 0) <= status.get("trials", 0):
        found.append(
            f"spec.maxTrialCount: Invalid value: {item['spec']['maxTrialCount']}: must be greater than status.trials count"
        )
    if rest[0] != rest[1]:
        shown = ", ".join(f"spec.{one}" for one in editable[:2])
        found.append(f"spec: Forbidden: only {shown} and spec.{editable[2]} are editable")
    return found


def _faults(cluster: "Cluster", item: Object) -> list[str]:
    spec, name = item.get("spec", {}), item["metadata"].get("name", "")
    found = []
    if len(name) > 40:
        rule = (
            "name must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with "
            f"an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for validation is '{_NAME}') and may not be "
            "longer than 40 characters. "
        )
        found.append(f'metadata.name: Invalid value: "{name}": {rule}')
    found += _counts(spec) + _objective(spec.get("objective"))
    algorithm = (spec.get("algorithm") or {}).get("algorithmName", "")
    if algorithm not in cluster.algorithms:
        why = f"failed to find suggestion config for algorithm: {algorithm} in ConfigMap: katib-config"
        text = f"unable to get Suggestion config data for algorithm {algorithm}: {why}"
        found.append(f'spec.algorithm.algorithmName: Invalid value: "{algorithm}": {text}')
    stopping = (spec.get("earlyStopping") or {}).get("algorithmName", "")
    if stopping and stopping not in cluster.early_stopping:
        why = f"failed to find early stopping config for algorithm: {stopping} in ConfigMap: katib-config"
        text = f"unable to get EarlyStopping config data for algorithm {stopping}: {why}"
        found.append(f'spec.earlyStopping.algorithmName: Invalid value: "{stopping}": {text}')
    policy = spec.get("resumePolicy", "Never")
    if policy not in ("Never", "LongRunning", "FromVolume"):
        found.append(f'spec.resumePolicy: Invalid value: "{policy}": invalid ResumePolicyType')
    if not spec.get("parameters"):
        return [*found, "spec: Required value: spec.parameters or spec.nasConfig must be specified"]
    return found + _template(spec)


def _counts(spec: Object) -> list[str]:
    most = spec.get("maxTrialCount")
    found = [
        f"spec.{field}: Invalid value: {spec[field]}: must be greater than 0"
        for field in ("maxTrialCount", "parallelTrialCount")
        if spec.get(field, 1) <= 0
    ]
    return found + [
        f"spec.{field}: Invalid value: {spec[field]}: should be less than or equal to spec.maxTrialCount"
        for field in ("parallelTrialCount", "maxFailedTrialCount")
        if most and spec.get(field, 0) > most > 0
    ]


def _objective(objective: Object | None) -> list[str]:
    if not objective:
        return ["spec.objective: Required value: must be specified"]
    found = []
    if objective.get("type") not in ("minimize", "maximize"):
        found.append(f'spec.objective.type: Invalid value: "{objective.get("type", "")}": must be minimize or maximize')
    names = objective.get("additionalMetricNames", [])
    if objective.get("objectiveMetricName") in names:
        shown = json.dumps(names, separators=(",", ":"))
        why = "should not contain spec.objective.objectiveMetricName"
        found.append(f"spec.objective.additionalMetricNames: Invalid value: {shown}: {why}")
    return found


def _template(spec: Object) -> list[str]:
    template, at = spec.get("trialTemplate") or {}, "spec.trialTemplate"
    trial = template.get("trialSpec") or {}
    if not template.get("primaryContainerName"):
        return [f"{at}.primaryContainerName: Required value: must be specified"]
    if trial.get("kind") not in _KNOWN_JOBS and not template.get("successCondition"):
        return [f"{at}: Required value: successCondition and failureCondition must be specified"]
    if (trial.get("metadata") or {}).get("name") or (trial.get("metadata") or {}).get("namespace"):
        return [f'{at}: Invalid value: "": metadata.name and metadata.namespace in {at} must be omitted']
    given = template.get("trialParameters", [])
    if not given and _PLACEHOLDER.search(json.dumps(trial)):
        return [f"{at}.trialParameters: Required value: must be specified"]
    names = [parameter["name"] for parameter in spec["parameters"]]
    shown = " ".join(f"{{{one['name']}  {one['reference']}}}" for one in given)
    seen: set[str] = set()
    for index, one in enumerate(given):
        where, reference = f"{at}.trialParameters[{index}].reference", one["reference"]
        if reference not in names and not reference.startswith("${trialSpec"):
            listed = " ".join(_shown(parameter) for parameter in spec["parameters"])
            why = f"parameter reference {reference} does not exist in spec.parameters: [{listed}]"
            return [f'{where}: Invalid value: "{reference}": {why}']
        if reference in seen:
            why = f"parameter reference {reference} can't be duplicated in {at}.trialParameters: [{shown}]"
            return [f'{where}: Invalid value: "{reference}": {why}']
        seen.add(reference)
    return []


def _shown(parameter: Object) -> str:
    """A parameter as Go prints it."""
    space = parameter.get("feasibleSpace", {})
    values = f"[{' '.join(space.get('list', []))}]"
    inner = (
        f"{space.get('max', '')} {space.get('min', '')} {values} {space.get('step', '')} {space.get('distribution', 'uniform')}"
    )
    return f"{{{parameter['name']} {parameter['parameterType']} {{{inner}}}}}"
