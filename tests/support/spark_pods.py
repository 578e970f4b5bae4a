"""A step with the Spark engine in a pod of the tests' cluster, which is Spark's driver; its executors are pods as well."""

import base64
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.apiserver import Cluster, kinds

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
NAMESPACE, DRIVER = "team", "step-1"
STEPS = """
import json, sys
from pathlib import Path
from tritower import logs
from tritower.config import from_dict
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig

logs.setup()
what, log, out, store, knobs = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5])
if what == "ingest":
    config = from_dict(IngestConfig, {"engine": "spark", "max_quarantined_share": 1.0, **knobs})
    uris = {"impressions": f"{log}/impressions"} | {name: f"{log}/{name}.parquet" for name in ("jobs", "users")}
    ingest.run(**uris, dataset=out / "dataset", store=f"{store}/dataset", config=config)
else:
    config = from_dict(FeaturesConfig, {"engine": "spark", **knobs})
    places = {"dataset": out.parent / "duckdb/dataset", "embeddings": out.parent / "duckdb/embeddings"}
    features.run(**places, features=out / "features", store=f"{store}/features", config=config)
"""


def cluster(**more: Any) -> Cluster:
    """A cluster with one namespace."""
    # Java lives for seconds here: it is not to spend them on compiling for hours.
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    environment = {"PYTHONPATH": f"{ROOT / 'components'}:{ROOT}", "JAVA_TOOL_OPTIONS": quick}
    return Cluster(namespaces=[NAMESPACE], environment=environment, **more)


def rules(name: str = "tritower-spark") -> list[Object]:
    """The rules of a Role of manifests/base."""
    found: list[Object] = []
    for file in (ROOT / "manifests/base").glob("*.yaml"):
        for one in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if one["kind"] == "Role" and one["metadata"]["name"] == name:
                found += one["rules"]
    return found


def prepare(one: Cluster, folder: Path, endpoint: str, *, rights: list[Object] | None = None) -> Path:
    """The store's Secret, and a kubeconfig of an account that holds the shipped Role alone."""
    values = {"endpoint": endpoint, "accesskey": "key", "secretkey": "secret"}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    one.add(kinds.SECRET, {"metadata": {"name": "tritower-store"}, "data": data}, namespace=NAMESPACE)
    token = one.token(rules() if rights is None else rights, namespace=NAMESPACE, account="pipeline-runner")
    return one.kubeconfig(folder / "kubeconfig", token, namespace=NAMESPACE)


def start(one: Cluster, command: list[str], kubeconfig: Path, endpoint: str, *, name: str = DRIVER) -> None:
    """Make the step's pod, as a backend does."""
    if one.store.get(kinds.ACCOUNT, NAMESPACE, "pipeline-runner") is None:
        one.add(kinds.ACCOUNT, {"metadata": {"name": "pipeline-runner"}}, namespace=NAMESPACE)
    plain = {"KUBECONFIG": str(kubeconfig), "TRITOWER_S3_ENDPOINT": endpoint, "OMP_NUM_THREADS": "1"}
    plain |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    own = [{"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    env = [{"name": key, "value": value} for key, value in plain.items()] + own
    main = {"name": "main", "image": "example/spark:1", "command": command, "env": env}
    labels = {"pipeline/runid": "run-7"}
    spec = {"restartPolicy": "Never", "serviceAccountName": "pipeline-runner", "containers": [main]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    headers = {"Authorization": f"Bearer {one.admin_token}", "Content-Type": "application/json"}
    url = f"{one.url}/api/v1/namespaces/{NAMESPACE}/pods"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(pod).encode(), headers, method="POST")) as answer:
        assert answer.status == 201


def steps(what: str, log: Path, out: Path, store: str, **knobs: Any) -> list[str]:
    """The command of a step: `ingest` or `features`, with knobs of its config."""
    spark = {"spark.master": "kubernetes", "spark.executors": 2, "spark.memory": "2Gi", "memory_limit": "512MiB"}
    return ["python3", "-c", STEPS, what, str(log), str(out), store, json.dumps(spark | knobs)]


def phase(one: Cluster, name: str = DRIVER) -> str:
    """Of a pod; empty where it is gone."""
    pod = one.store.get(kinds.POD, NAMESPACE, name)
    return str(pod["status"].get("phase", "")) if pod else ""


def executors(one: Cluster, *phases: str) -> list[Object]:
    """The executors' pods, those in one of the phases where some are named."""
    pods = [pod for pod in one.store.all(kinds.POD, NAMESPACE) if pod["metadata"]["name"] != DRIVER]
    return [pod for pod in pods if not phases or pod["status"].get("phase") in phases]


def log(one: Cluster, name: str = DRIVER) -> str:
    """What a pod has printed; nothing before its first container has begun."""
    container = one._runner(name, NAMESPACE).containers[0]
    return b"".join(line for attempt in container.attempts for _, line in attempt.lines).decode()


def ended(one: Cluster, seconds: float = 900.0, *, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Wait for the step's end; its last phase."""
    deadline = time.monotonic() + seconds
    while phase(one) not in ("Succeeded", "Failed"):
        assert time.monotonic() < deadline, f"the step has not ended: {log(one)[-3_000:]}"
        meanwhile()
        time.sleep(0.3)
    return phase(one)
