"""The three doors, and everything that is refused at them: a real server, a ranking that takes no time."""

import dataclasses
import json
import struct
import time

import httpx
import pytest
from tritower.serving import moment
from tritower.serving.messages import Answer, Question, Versions

from tests.support import serving_process, tiny_server

JOBS = ("nurse-1", "nurse-2", "cook-1")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")
    bundle = tiny_server.write(folder / "bundle", version="v1", jobs=JOBS)
    config = {"max_body_bytes": 200_000, "max_candidates": 100, "max_query_chars": 50, "max_k": 20, "max_searches": 3}
    with serving_process.served(tiny_server.command(bundle, **config), folder) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with server.client() as one:
        yield one


def test_the_typed_door_ranks(client):
    """`cook` shares three letters with cook-1 and none with the nurses, which come in the order of their ids."""
    answer = client.post("/rank", json={"query": "cook", "k": 2, "user_id": "u1"})
    assert answer.status_code == 200
    assert [(job["rank"], job["job_id"]) for job in answer.json()["jobs"]] == [(1, "cook-1"), (2, "nurse-1")]
    assert answer.json()["versions"]["bundle"] == "v1"


def test_candidates_are_ranked_and_unknown_ones_named(client):
    answer = client.post("/rank", json={"query": "nurse", "candidates": ["cook-1", "gone", "nurse-2"]}).json()
    assert [job["job_id"] for job in answer["jobs"]] == ["nurse-2", "cook-1"]
    assert answer["unknown"] == ["gone"]


def test_reasons_and_features_are_in_an_answer_that_they_are_asked_for(client):
    """At each door; a missing feature is null, and what nobody asked for is not there at all."""

    def answers(search):
        tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "data": [json.dumps(search)]}
        yield client.post("/rank", json=search).json()
        yield client.post("/v1/models/tritower:predict", json={"instances": [search]}).json()["predictions"][0]
        outputs = client.post("/v2/models/tritower/infer", json={"inputs": [tensor]}).json()["outputs"]
        yield json.loads(next(one["data"][0] for one in outputs if one["name"] == "answer"))

    for plain in answers({"query": "cook", "k": 1}):
        assert not {"features", "median_score"} & plain.keys()
        assert not {"features", "reasons"} & plain["jobs"][0].keys()
        assert plain["jobs"][0]["city"] is None  # unknown, not unasked
    for full in answers({"query": "cook", "k": 1, "explain": True, "features": True}):
        assert (full["features"], full["median_score"]) == (["length", "luck"], 0.5)
        assert full["jobs"][0]["features"] == [0.1 * len("cook-1"), None]
        assert full["jobs"][0]["reasons"] == [{"group": "words", "value": 0.5}]
    more = client.post("/v2/models/tritower/infer", json=_query("cook") | {"parameters": {"features": True}}).json()
    assert json.loads(more["outputs"][-1]["data"][0])["features"] == ["length", "luck"]


def test_a_search_without_a_time_says_that_the_state_is_old(client):
    """The server's state ends with 2026-01-01T00:00:00Z; 14 days later nobody need know, after that everybody must."""
    last = 1_767_225_600_000_000
    old = client.post("/rank", json={"query": "cook"}).json()
    assert abs(old["ts"] - time.time() * 1e6) < 600e6
    assert len(old["warnings"]) == 1
    assert "days after the last event that the server knows (2026-01-01)" in old["warnings"][0]
    assert client.post("/rank", json={"query": "cook", "ts": last}).json()["warnings"] == []
    versions = Versions(bundle="b", name="main", model="m", encoder="e", catalogue="c", state="2026-01-01T00:00:00+00:00")
    for behind_us, is_old in ((14 * 86_400_000_000, False), (14 * 86_400_000_000 + 2, True)):
        answer = Answer(request_id="r", ts=last + behind_us, jobs=(), versions=versions)
        assert bool(moment.warned(Question(), answer).warnings) is is_old
        assert moment.warned(Question(ts=0), answer).warnings == ()
    empty = dataclasses.replace(versions, state="")
    assert moment.warned(Question(), dataclasses.replace(answer, versions=empty)).warnings == ()


def test_a_server_may_answer_as_of_its_last_event(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    with serving_process.served(tiny_server.command(bundle, as_of="last_event"), tmp_path) as running, running.client() as one:
        answer = one.post("/rank", json={"query": "cook"}).json()
        assert (answer["ts"], answer["warnings"]) == (1_767_225_600_000_001, [])
        assert one.post("/rank", json={"ts": 5}).json()["ts"] == 5
        search = one.get("/openapi.json").json()["components"]["schemas"]["Search"]["properties"]
        assert "just after the last event" in search["ts"]["description"]


def test_a_request_id_comes_back_in_body_and_header(client):
    made = client.post("/rank", json={})
    assert made.json()["request_id"] == made.headers["x-request-id"] != ""
    sent = client.post("/rank", json={}, headers={"X-Request-Id": "abc-1"})
    assert sent.json()["request_id"] == sent.headers["x-request-id"] == "abc-1"
    assert client.post("/rank", json={"request_id": "mine"}).json()["request_id"] == "mine"
    refused = client.post("/rank", json=[], headers={"X-Request-Id": "abc-2"})
    assert refused.json()["request_id"] == refused.headers["x-request-id"] == "abc-2"
    assert client.get("/v2", headers={"X-Request-Id": "no good: a blank"}).headers["x-request-id"] != "no good: a blank"


def test_kserve_v1(client):
    assert client.get("/v1/models").json() == {"models": ["tritower"]}
    assert client.get("/v1/models/tritower").json() == {"name": "tritower", "ready": True}
    given = {"instances": [{"query": "cook", "k": 1}, {"query": "nurse", "k": 1}]}
    answer = client.post("/v1/models/tritower:predict", json=given)
    assert [one["jobs"][0]["job_id"] for one in answer.json()["predictions"]] == ["cook-1", "nurse-1"]
    assert len({one["request_id"] for one in answer.json()["predictions"]}) == 2
    assert client.post("/v1/models/other:predict", json=given).status_code == 404


def test_open_inference_protocol_v2(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True, "trouble": ""}
    assert client.get("/v2/models/tritower/ready").json() == {"name": "tritower", "ready": True}
    about = client.get("/v2/models/tritower").json()
    assert about["versions"] == ["v1"]
    assert {"name": "query", "datatype": "BYTES", "shape": [-1]} in about["inputs"]
    inputs = [
        {"name": "query", "shape": [2], "datatype": "BYTES", "data": ["cook", "nurse"]},
        {"name": "candidates", "shape": [2, 2], "datatype": "BYTES", "data": ["cook-1", "nurse-1", "nurse-2", ""]},
    ]
    answer = client.post("/v2/models/tritower/infer", json={"id": "i1", "parameters": {"k": 2}, "inputs": inputs}).json()
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("i1", "tritower", "v1")
    assert outputs["job_id"]["shape"] == outputs["score"]["shape"] == [2, 2]
    assert outputs["job_id"]["data"] == ["cook-1", "nurse-1", "nurse-2", ""]
    assert outputs["score"]["data"] == [1 / 2, 1 / 3, 1 / 2, 0.0]
    assert outputs["count"]["data"] == [2, 1]
    assert json.loads(outputs["answer"]["data"][1])["request_id"] == "i1-1"


def test_v2_takes_binary_values_and_whole_requests(client):
    values = b"".join(struct.pack("<I", len(one)) + one for one in (b"cook", b"nurse"))
    tensor = {"name": "query", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(values)}}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "job_id"}], "parameters": {"k": 1}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post("/v2/models/tritower/infer", content=head + values, headers=headers).json()
    assert [(one["name"], one["data"]) for one in answer["outputs"]] == [("job_id", ["cook-1", "nurse-1"])]
    whole = {"name": "request", "shape": [1], "datatype": "BYTES", "data": [json.dumps({"query": "cook", "k": 1})]}
    answer = client.post("/v2/models/tritower/infer", json={"inputs": [whole]}).json()
    assert answer["outputs"][0]["data"] == ["cook-1"]


def _query(*data, **more):
    return {"inputs": [{"name": "query", "shape": [len(data)], "datatype": "BYTES", "data": list(data)} | more]}


BAD = {
    "malformed JSON": ("/rank", b'{"query": ', 400, "body", "not JSON"),
    "no UTF-8": ("/rank", b'{"query": "\xff"}', 400, "body", ""),
    "a JSON list": ("/rank", b"[1]", 422, "body", "does not fit"),
    "nothing": ("/rank", b"", 400, "body", ""),
    "null": ("/rank", b"null", 422, "body", ""),
    "nested too deep": ("/rank", b"[" * 90_000, 400, "body", ""),
    "a number of 5,000 digits": ("/rank", b'{"k": ' + b"1" * 5_000 + b"}", 400, "body", "out of range"),
    "NaN": ("/rank", b'{"filters": {"near": {"km": NaN}}}', 422, "filters.near.km", ""),
    "no distance": ("/rank", {"filters": {"near": {"place": "Austin"}}}, 422, "filters.near.km", ""),
    "a distance of 0": ("/rank", {"filters": {"near": {"km": 0}}}, 422, "filters.near.km", ""),
    "farther than anything is": ("/rank", {"filters": {"near": {"km": 20_041}}}, 422, "filters.near.km", ""),
    "a latitude alone": ("/rank", {"filters": {"near": {"km": 5, "latitude": 1}}}, 422, "filters.near", "go together"),
    "beyond the pole": (
        "/rank", {"filters": {"near": {"km": 5, "latitude": 90.1, "longitude": 0}}}, 422, "filters.near.latitude", "",
    ),
    "an infinite longitude": (
        "/rank", b'{"filters": {"near": {"km": 5, "latitude": 1, "longitude": Infinity}}}', 422, "filters.near.longitude", "",
    ),
    "a place and coordinates": (
        "/rank", {"filters": {"near": {"km": 5, "place": "x", "latitude": 1, "longitude": 2}}}, 422, "filters.near", "not both",
    ),
    "half a character": ("/rank", b'{"query": "\\ud800"}', 400, "body", "hex escape"),
    "text for a number": ("/rank", {"k": "5"}, 422, "k", "'5'"),
    "a float for a number": ("/rank", {"k": 1.5}, 422, "k", ""),
    "a number for text": ("/rank", {"query": 5}, 422, "query", "5"),
    "a text for a list": ("/rank", {"candidates": "nurse-1"}, 422, "candidates", ""),
    "an unknown field": ("/rank", {"qeury": "nurse"}, 422, "qeury", "Did you mean 'query'?"),
    "an unknown field inside": ("/rank", {"filters": {"town": "x"}}, 422, "filters.town", "unknown field"),
    "k of 0": ("/rank", {"k": 0}, 422, "k", ""),
    "k over the limit": ("/rank", {"k": 21}, 422, "k", "20 at most"),
    "101 candidates": ("/rank", {"candidates": ["j"] * 101}, 422, "candidates", "100 at most"),
    "a query of 51 characters": ("/rank", {"query": "x" * 51}, 422, "query", "50 at most"),
    "a time before 1970": ("/rank", {"ts": -1}, 422, "ts", ""),
    "a query of 1 MB": ("/rank", {"query": "x" * 1_000_000}, 413, "max_body_bytes is 200,000", "too long"),
    "10,000 candidates": ("/rank", {"candidates": [f"job-{n:08}" for n in range(10_000)]}, 422, "candidates", "100 at most"),
    "what the ranking refuses": ("/rank", {"filters": {"near": {"km": 5}}}, 422, "filters.near", "no coordinates"),
    "no instances": ("/v1/models/tritower:predict", {"instances": []}, 422, "instances", ""),
    "a V1 list": ("/v1/models/tritower:predict", [1, 2], 422, "body", ""),
    "a bad instance": ("/v1/models/tritower:predict", {"instances": [{}, {"k": "x"}]}, 422, "instances.1.k", ""),
    "four instances": ("/v1/models/tritower:predict", {"instances": [{}] * 4}, 422, "instances", "3 at most"),
    "an instance over a limit": ("/v1/models/tritower:predict", {"instances": [{"k": 21}]}, 422, "instances.0.k", "20 at most"),
    "V2 that is no JSON": ("/v2/models/tritower/infer", b"{", 400, "body", "not JSON"),
    "V2 of another type": ("/v2/models/tritower/infer", _query("x", datatype="FP32"), 422, "inputs.0.datatype", ""),
    "a shape that lies": ("/v2/models/tritower/infer", _query("x", shape=[2]), 422, "inputs.query", "do not fill"),
    "a shape of nothing": ("/v2/models/tritower/infer", _query(shape=[0]), 422, "inputs.query", ""),
    "a negative shape": ("/v2/models/tritower/infer", _query("x", shape=[-1, -1]), 422, "inputs.query", ""),
    "an unknown output": ("/v2/models/tritower/infer", _query("x") | {"outputs": [{"name": "y"}]}, 422, "outputs", "job_id"),
    "k as text in V2": ("/v2/models/tritower/infer", _query("x") | {"parameters": {"k": "1"}}, 422, "inputs.0.k", ""),
    "binary that is not there": (
        "/v2/models/tritower/infer",
        {"inputs": [{"name": "query", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]},
        422,
        "inputs.query",
        "binary_data_size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_the_callers_fault_is_named(client, case):
    path, content, status, where, said = BAD[case]
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["where"] == where
    assert told["what"] and told["remedy"] and told["request_id"]
    assert said in told["error"]


def test_a_fault_of_the_servers_is_told_without_its_insides(client, server):
    answer = client.post("/rank", json={"query": "fault"}, headers={"X-Request-Id": "f-1"})
    assert answer.status_code == 500
    assert answer.json()["what"] == "the server failed"
    assert "fault of ours" not in answer.text
    serving_process.until(lambda: "RuntimeError: a fault of ours" in server.said())  # the log may come after the answer
    assert "request f-1 failed" in server.said()


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/nowhere", "GET", 404), ("/rank", "DELETE", 405), ("/rank/", "GET", 405)]
)
def test_other_paths_and_methods(client, path, method, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["remedy"] == "The paths are described in /openapi.json."


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tritower", "/v1/models", "/v1/models/tritower", "/openapi.json"],
)
def test_head_answers_as_get_without_the_body(client, path):
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content)) != "0"
    assert head.headers["content-type"] == got.headers["content-type"]


def test_head_counts_as_its_route(client, server):
    before = server.figure('tritower_requests_total{route="/v2/health/live",status="200"}')
    assert client.head("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert client.head("/v2/health/live").status_code == 200
    assert server.figure('tritower_requests_total{route="/v2/health/live",status="200"}') == before + 1
    assert client.head("/nowhere").status_code == 404
    assert client.head("/v1/models/other").status_code == 404
    assert client.head("/rank").status_code == 405


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/rank", "OPTIONS, POST"),
        ("/v2", "GET, HEAD, OPTIONS"),
        ("/v1/models/tritower", "GET, HEAD, OPTIONS"),
        ("/v1/models/tritower:predict", "OPTIONS, POST"),
        ("/v2/models/tritower/infer", "OPTIONS, POST"),
    ],
)
def test_options_and_a_wrong_method_name_the_right_ones(client, path, allowed):
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    told = client.options(path, headers=asked)
    assert (told.status_code, told.headers["allow"]) == (204, allowed)
    assert not [name for name in told.headers if name.startswith("access-control")]  # pages of other origins are not let in
    wrong = client.delete(path)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, allowed)


def test_a_slash_at_the_end_of_a_path_changes_nothing(client):
    assert client.post("/rank/", json={"query": "cook", "k": 1}).json()["jobs"][0]["job_id"] == "cook-1"
    assert client.get("/v2/health/ready/").status_code == client.get("/metrics/").status_code == 200
    assert client.options("/nowhere/").status_code == 404


def test_the_content_must_be_said_to_be_json(client):
    answer = client.post("/rank", content=b'{"query": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["remedy"]


def test_figures_count_every_request(server, client):
    before = server.figure('tritower_requests_total{route="/rank",status="200"}')
    for _ in range(3):
        client.post("/rank", json={})
    assert server.figure('tritower_requests_total{route="/rank",status="200"}') == before + 3
    assert server.figure('tritower_requests_total{route="/rank",status="422"}') > 0
    assert server.figure("tritower_in_flight") == 1  # the one that asks
    assert server.figure("tritower_ready") == 1
    assert server.figure('tritower_bundle{bundle="v1",name="main"}') == 1


def test_the_limits_are_in_the_description(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["Search"]["properties"]["query"]["maxLength"] == 50
    assert schemas["Search"]["properties"]["candidates"]["anyOf"][0]["maxItems"] == 100
    assert "InferRequest" in schemas


def test_no_search_is_in_the_log(client, server):
    client.post("/rank", json={"query": "a private matter", "user_id": "somebody"})
    httpx.get(f"{server.address}/?query=another-private-matter")
    assert "private" not in server.said()
