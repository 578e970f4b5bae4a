"""Other people's clients: Schemathesis against the description, KServe's and Triton's own clients.

The last two do not install beside our versions. Where TRITOWER_CLIENTS names a Python that has them, they
are run in it (`python -m venv FOLDER; FOLDER/bin/pip install kserve 'tritonclient[http]'; TRITOWER_CLIENTS=FOLDER/bin/python`).
"""

import json
import os
import subprocess

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from tests.support import tiny_server
from tests.support.serving_process import served

CLIENTS = os.environ.get("TRITOWER_CLIENTS", "")

_KSERVE = """
import asyncio, json, sys
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(address):
    found = {}
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    found["v1 ready"] = await v1.is_model_ready(address, "tritower")
    found["v1"] = await v1.infer(address, {"instances": [{"query": "cook", "k": 1}]}, model_name="tritower")
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    found["live"], found["ready"] = await v2.is_server_live(address), await v2.is_server_ready(address)
    found["v2 ready"] = await v2.is_model_ready(address, "tritower")
    asked = InferRequest("tritower", [InferInput("query", [1], "BYTES", data=["cook"])], parameters={"k": 1})
    answer = await v2.infer(address, asked, model_name="tritower")
    found["v2"] = {one.name: one.data for one in answer.outputs}
    try:
        await v1.infer(address, {"instances": [1]}, model_name="tritower")
    except Exception as error:
        found["error"] = str(error)
    print(json.dumps(found))

asyncio.run(main(sys.argv[1]))
"""

_TRITON = """
import json, sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

client = InferenceServerClient(sys.argv[1].removeprefix("http://"))
found = {"live": client.is_server_live(), "ready": client.is_server_ready(), "model": client.is_model_ready("tritower")}
found["about"] = client.get_model_metadata("tritower")["versions"]
for binary in (True, False):
    values = np.array([b"cook", b"nurse"], dtype=object)
    query = InferInput("query", [2], "BYTES").set_data_from_numpy(values, binary_data=binary)
    answer = client.infer("tritower", [query], parameters={"k": 1})
    found[f"binary {binary}"] = answer.as_numpy("job_id").tolist(), answer.as_numpy("score").tolist()
wanted = [InferRequestedOutput("job_id", binary_data=False)]
found["wanted"] = [one["name"] for one in client.infer("tritower", [query], outputs=wanted).get_response()["outputs"]]
try:
    client.infer("tritower", [query], parameters={"k": -1})
except InferenceServerException as error:
    found["error"] = str(error)
print(json.dumps(found, default=lambda one: one.decode()))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    bundle = tiny_server.write(folder / "bundle", version="v1", jobs=["nurse-1", "nurse-2", "cook-1"])
    with served(tiny_server.command(bundle), folder) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_nothing_that_the_description_allows_or_forbids_is_a_fault_of_the_servers(server, mode):
    """Values that fit and values that do not, for every route: no 500, and no answer of another form than described."""
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    tried, forms = 0, schemathesis.specs.openapi.checks
    asked = [
        checks.not_a_server_error,
        forms.status_code_conformance,
        forms.content_type_conformance,
        forms.response_schema_conformance,
    ]

    def check(case):
        nonlocal tried
        tried += 1
        case.call_and_validate(checks=asked)

    for one in schema.get_all_operations():
        operation = one.ok()
        if mode is GenerationMode.NEGATIVE and operation.method != "post":
            continue  # nothing to get wrong
        few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        few(given(case=operation.as_strategy(generation_mode=mode))(check))()
    assert tried > 100
    assert "Traceback" not in server.said()


def _ran(program, address):
    ended = subprocess.run([CLIENTS, "-c", program, address], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.skipif(not CLIENTS, reason="TRITOWER_CLIENTS names no Python with kserve and tritonclient")
def test_kserves_own_client_gets_answers(server):
    found = _ran(_KSERVE, server.address)
    assert all(found[name] is True for name in ("live", "ready", "v1 ready", "v2 ready"))
    assert found["v1"]["predictions"][0]["jobs"][0]["job_id"] == "cook-1"
    assert (found["v2"]["job_id"], found["v2"]["score"], found["v2"]["count"]) == (["cook-1"], [0.5], [1])
    assert "422" in found["error"]


@pytest.mark.skipif(not CLIENTS, reason="TRITOWER_CLIENTS names no Python with kserve and tritonclient")
def test_tritons_own_client_gets_answers(server):
    found = _ran(_TRITON, server.address)
    assert (found["live"], found["ready"], found["model"], found["about"]) == (True, True, True, ["v1"])
    assert found["binary True"] == found["binary False"] == [[["cook-1"], ["nurse-1"]], [[0.5], [0.5]]]
    assert found["wanted"] == ["job_id"]
    assert "Input should be greater than or equal to 1" in found["error"]
