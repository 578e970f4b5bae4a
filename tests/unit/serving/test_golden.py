"""The golden questions of a bundle, and a real server in the pods of the tests' cluster that must answer them."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.config import from_dict
from tritower.deploy import asking, release
from tritower.deploy.config import DeployConfig
from tritower.deploy.rollout import Rollout
from tritower.errors import JobFailed
from tritower.serving import bundle, golden
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

from tests.support.apiserver import Cluster, kinds, served
from tests.support.bundles import Run
from tests.support.s3 import bare, endpoint, s3  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[3]


def test_the_searches_made_most_often_are_asked(run: Run, tmp_path: Path) -> None:
    assert golden.write(run.sources.dataset, tmp_path / "questions") == 11
    found = storage.read_json(tmp_path / "questions" / golden.FILE)
    requests = pq.read_table(run.sources.dataset / "requests.parquet").to_pylist()
    texts = dict(zip(*pq.read_table(run.sources.dataset / "texts.parquet", columns=["text", "value"]).to_pydict().values(),
                     strict=True))  # fmt: skip
    places = ("city", "region", "country")
    counts = Counter((texts[one["query_text"]], *(one[place] for place in places)) for one in requests)
    asked = [counts[(one["query"], *(one.get(place) for place in places))] for one in found[:-1]]
    assert asked == [count for _, count in counts.most_common(10)] and len(found[-1]["candidates"]) == 3


def test_its_own_ranking_answers_them(ranking: Ranking, bundle_folder: Path) -> None:
    for one in storage.read_json(bundle_folder / "questions" / golden.FILE):
        known = one | ({"candidates": tuple(one["candidates"])} if "candidates" in one else {})
        answer = ranking.answer(Question(**known))
        told = {"versions": {"bundle": answer.versions.bundle}, "jobs": [vars(job) for job in answer.jobs]}
        assert not asking.fault(told, bundle.read(bundle_folder).sha256), one


@pytest.mark.slow
def test_a_real_server_is_let_in_and_a_damaged_bundle_is_not(
    bundle_folder: Path,
    s3: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage.upload_tree(str(bundle_folder), f"{s3}/good")
    environment = {"PYTHONPATH": f"{ROOT / 'components'}:{ROOT}", "AWS_REGION": "us-east-1"}
    with served(Cluster(namespaces=["team"], accounts=["tritower-server"], environment=environment)) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        from tests.unit.cluster.conftest import keys

        cluster.add(kinds.SECRET, keys("key"), namespace="team")
        token = {"metadata": {"name": "tritower-serving"}, "stringData": {}, "data": {"token": "b3Blbg=="}}
        cluster.add(kinds.SECRET, token, namespace="team")
        config = from_dict(DeployConfig, {"image": "example/serve:1", "launcher": "kserve", "replicas": 1, "poll_s": 0.2,
                                          "start_timeout_s": 300, "cpu": "10m"})  # fmt: skip
        good = release.read(f"{s3}/good")
        assert good.version == bundle.read(bundle_folder).sha256 and len(good.questions) == 11
        said = Rollout(config).deploy(good, gate="pass")
        assert f"(bundle {good.version[:16]}) has all requests" in said

        storage.upload_tree(str(bundle_folder), f"{s3}/bad")
        (tmp_path / "join.json").write_text("{}")
        storage.upload(tmp_path / "join.json", f"{s3}/bad/ranker/join.json")
        with pytest.raises(JobFailed, match=r"it failed 2 time\(s\): .*ArtifactError.*join\.json"):
            Rollout(config).deploy(release.read(f"{s3}/bad"), gate="pass")
        assert Rollout(config).record().sets.keys() == {said.split()[0]}
