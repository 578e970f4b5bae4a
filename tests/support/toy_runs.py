"""How runs of the toy pipelines go on the tests' own backend: their nodes, states and logs as KFP 2.17 gives them."""

import json
import time
from typing import Any

from tests.support.kfp_api import Api, enter
from tests.support.kfp_nodes import node_hash, tasks

_STEP_S = 0.08
_TRACE = """\
I1126 14:00:01.000000      12 launcher_v2.go:180] launcher info
Traceback (most recent call last):
  File "/opt/tritower/lib/python3.11/site-packages/kfp/dsl/executor_main.py", line 109, in executor_main
    output_file = executor.execute()
tritower.errors.DataError: the text is too long (in {text}). Shorten it.
E1126 14:00:04.100000      12 launcher_v2.go:420] Component failed to execute successfully: exit status 1
"""


class Engine:
    """Lets a run's steps pass one after the other, each in a moment, as its parameters say."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.ending: dict[str, float] = {}

    def __call__(self, api: Api, run: dict[str, Any]) -> None:
        run_id = run["run_id"]
        if run.get("state") in ("SUCCEEDED", "FAILED"):
            return
        if run_id in api.orphans:
            run.setdefault("state", "RUNNING")
            return
        now = time.monotonic()
        passed = now - self.began.setdefault(run_id, now)
        given = {"limit": 10, "seconds": 0.0} | run["runtime_config"]["parameters"]
        given = {
            name: value.replace("{{workflow.uid}}", run_id) if isinstance(value, str) else value
            for name, value in given.items()
        }
        names = ["judge"] if "word" in given else ["double", "check"]
        ends = [_STEP_S * 2 + given["seconds"], _STEP_S * 3 + given["seconds"]][: len(names)]
        states = ["SUCCEEDED" if passed > end else "RUNNING" for end in ends]
        states = states[: states.index("RUNNING") + 1] if "RUNNING" in states else states
        if names[-1] == "check" and states == ["SUCCEEDED"] * 2 and len(given["text"]) * 2 > given["limit"]:
            states[1] = "FAILED"
        if run.get("state") == "CANCELING":
            if now - self.ending.setdefault(run_id, now) > _STEP_S:
                enter(run, "FAILED")
                states = ["FAILED" if state == "RUNNING" else state for state in states]
        elif passed < _STEP_S:
            enter(run, "PENDING")
            states = []
        elif "FAILED" in states or states == ["SUCCEEDED"] * len(names):
            enter(run, "RUNNING")
            enter(run, "FAILED" if "FAILED" in states else "SUCCEEDED")
        else:
            enter(run, "RUNNING")
        self._show(api, run, dict(zip(names, states, strict=False)), given)

    def _show(self, api: Api, run: dict[str, Any], states: dict[str, str], given: dict[str, Any]) -> None:
        workflow = f"toy-{run['run_id'][:5]}"
        above = "RUNNING" if run["state"] == "CANCELING" else run["state"]
        nodes = [("root-driver", "SUCCEEDED"), ("root-driver(0)", "SUCCEEDED"), ("root", above), ("root(0)", above)]
        for name, state in states.items():
            base = f"root(0).{name}"
            nodes += [(f"{base}-driver", "SUCCEEDED"), (f"{base}-driver(0)", "SUCCEEDED")]
            nodes += [(node, state) for node in (base, f"{base}(0)", f"{base}(0).executor", f"{base}(0).executor(0)")]
            pod = f"{workflow}-system-container-impl-{node_hash(f'{workflow}(0).{base}(0).executor(0)')}"
            api.logs[pod] = self._log(name, state, given)
        run["run_details"] = {"task_details": tasks(workflow, nodes if states else [])}

    def _log(self, name: str, state: str, given: dict[str, Any]) -> str:
        if name == "judge":
            output = {"parameterValues": {"word": given["word"], "why": given["why"]}}
            output["artifacts"] = {"metrics": {"artifacts": [{"metadata": {"auc": 0.73125}}]}}
            said = f"ExecutorOutput: {json.dumps(output, indent=1)}"
            return f"said\nI1126 14:00:04.1      12 launcher_v2.go:1230] {said}\nI1126 end\n"
        if name == "double":
            return f"[KFP Executor 2026-11-26 14:00:02,000 INFO]: doubling {given['text']}\n"
        return _TRACE.format(text=given["text"] * 2) if state == "FAILED" else "well\n"
