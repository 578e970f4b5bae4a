"""The resources that are served: those that a launcher, its preflight and the operators ask for."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Kind:
    """A resource. Args: schema: the name of a CRD's file in tests/data/crds without its ending, or `models:` and that
    of one of the official client's models; none is checked without."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    schema: str = ""
    fields: tuple[str, ...] = ()
    """Field labels beside metadata.name and metadata.namespace that a fieldSelector may name."""

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def resource(self) -> str:
        """`pytorchjobs.kubeflow.org`, or `pods`, as messages have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


POD = Kind("", "v1", "pods", "Pod", fields=("status.phase", "spec.nodeName"))
SERVICE = Kind("", "v1", "services", "Service", schema="models:V1Service")
EVENT = Kind(
    "",
    "v1",
    "events",
    "Event",
    fields=("involvedObject.name", "involvedObject.kind", "involvedObject.uid", "involvedObject.namespace", "reason", "type"),
)
SECRET = Kind("", "v1", "secrets", "Secret")
ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
PYTORCHJOB = Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob", schema="kubeflow.org_pytorchjobs.v1.9.4")
EXPERIMENT = Kind("kubeflow.org", "v1beta1", "experiments", "Experiment", schema="katib-openapi-v0.19.0")
TRIAL = Kind("kubeflow.org", "v1beta1", "trials", "Trial")
SUGGESTION = Kind("kubeflow.org", "v1beta1", "suggestions", "Suggestion")
TRAINJOB = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob", schema="trainer.kubeflow.org_trainjobs.v2.3.0")
RUNTIME = Kind(
    "trainer.kubeflow.org",
    "v1alpha1",
    "trainingruntimes",
    "TrainingRuntime",
    schema="trainer.kubeflow.org_trainingruntimes.v2.3.0",
)
SPARK = Kind(
    "sparkoperator.k8s.io",
    "v1beta2",
    "sparkapplications",
    "SparkApplication",
    schema="sparkoperator.k8s.io_sparkapplications.v2.5.2",
)
JOBSET = Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
WORKFLOW = Kind("argoproj.io", "v1alpha1", "workflows", "Workflow")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment", schema="models:V1Deployment")
REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet", schema="models:V1ReplicaSet")
SCALER = Kind(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", schema="models:V2HorizontalPodAutoscaler"
)
BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", schema="models:V1PodDisruptionBudget")
INFERENCE = Kind(
    "serving.kserve.io",
    "v1beta1",
    "inferenceservices",
    "InferenceService",
    schema="serving.kserve.io_inferenceservices.v0.20.0",
)
ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")

BUILT_IN = (
    POD, SERVICE, EVENT, SECRET, ACCOUNT, CONFIG_MAP, CLAIM, QUOTA, NODE, NAMESPACE, CRD, DEPLOYMENT, REPLICA_SET,
    SCALER, BUDGET,
)  # fmt: skip
CUSTOM = (PYTORCHJOB, EXPERIMENT, TRIAL, SUGGESTION, TRAINJOB, RUNTIME, JOBSET, SPARK, WORKFLOW, INFERENCE, ROUTE, GATEWAY)
