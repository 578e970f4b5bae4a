"""`submit`, `schedule` and `diagnose`: the compiled pipeline on a Kubeflow Pipelines backend.

Endpoint and token come from the command line or from KF_PIPELINES_ENDPOINT and KF_PIPELINES_TOKEN; inside a cluster the
client finds the service by itself.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tritower.errors import ConfigError, LaunchError

from pipelines import backend_inputs, diagnosis, executor_logs

_PAGE = 100
_AWAY = (429, 500, 502, 503, 504)
_CONNECT_S, _READ_S = 10.0, 60.0
_LOG_BYTES = 1 << 20
PATIENCE_S = 600.0
"""How long a backend may be away while a run is followed: an upgrade or a drained node takes minutes."""


class _Unanswered(LaunchError):
    """The backend did not answer, or not for itself; it may do so in a while."""


class Scheduled(NamedTuple):
    """Ids of the new schedule, of older ones of its name that were deleted, and of those that wait for a run to end."""

    made: str
    deleted: list[str]
    waiting: list[str]


class Backend:
    """A Kubeflow Pipelines backend.

    Args:
        endpoint: address of the API, such as `http://localhost:8888`; empty to let the client find it.
        namespace: the user's namespace where the backend serves several; empty where it does not.
        token: bearer token, if the endpoint asks for one.

    Raises:
        LaunchError: the backend cannot be reached or refuses.
    """

    def __init__(self, endpoint: str = "", *, namespace: str = "", token: str = "") -> None:
        import kfp

        self._namespace = namespace or None
        self._pods_in = namespace or "kubeflow"
        self._where = endpoint or os.environ.get("KF_PIPELINES_ENDPOINT", "the cluster's own service")
        with warnings.catch_warnings(), _api_errors(self._where), _without_log():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = kfp.Client(
                host=endpoint or None,
                namespace=namespace or "kubeflow",
                existing_token=token or os.environ.get("KF_PIPELINES_TOKEN") or None,
            )

    def submit(
        self,
        pipeline: Path,
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        name: str,
        service_account: str = "",
        use_cache: bool = True,
    ) -> str:
        """Start a run; returns its id.

        Args:
            pipeline: the compiled YAML.
            arguments: pipeline parameters.
            experiment: its name; made if there is none.
            name: of the run.
            service_account: for the run's pods; the backend's default if empty.
            use_cache: False runs every step anew; True leaves it to the compiled pipeline.

        Raises:
            ConfigError: an argument does not have the declared type.
        """
        backend_inputs.check_arguments(pipeline, arguments)
        with _api_errors(self._where):
            run = self._client.run_pipeline(
                experiment_id=self._experiment(experiment),
                job_name=name,
                pipeline_package_path=str(pipeline),
                params=dict(arguments),
                enable_caching=None if use_cache else False,
                service_account=service_account or None,
            )
        return str(run.run_id)

    def wait(
        self,
        run_id: str,
        *,
        poll_s: float = 10.0,
        patience_s: float = PATIENCE_S,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> str:
        """Follow a run until it ends; returns its state.

        The client's own waiting knows no CANCELED, takes FAILED for an answer and ends with the first request that fails.

        Args:
            run_id: the run.
            poll_s: seconds between two looks.
            patience_s: seconds for which the backend may not answer.
            say: gets a line when the backend stops answering, and one when it is back.

        Raises:
            JobFailed: the run ended without success; names the step, its error and the command that shows its log.
            LaunchError: the backend refuses, or has not answered for too long.
        """
        away_since = None
        while True:
            try:
                run = self.run(run_id)
            except _Unanswered as error:
                now = time.monotonic()
                if away_since is None:
                    away_since = now
                    say(f"{error.problem}; asking again for up to {_minutes(patience_s)}")
                if now - away_since >= patience_s:
                    raise LaunchError(
                        f"{error.problem}; no answer for {_minutes(patience_s)}",
                        where=self._where,
                        remedy=f"The run goes on by itself: `python -m pipelines diagnose {run_id}` tells what became of it.",
                    ) from error
            else:
                if away_since is not None:
                    say(f"the backend answers again after {time.monotonic() - away_since:.0f} s")
                away_since = None
                if diagnosis.state(run) in diagnosis.ENDED:
                    return self._ended(run)
            time.sleep(poll_s)

    def diagnose(self, run_id: str) -> list[str]:
        """Where a run is, in lines.

        Raises:
            JobFailed: the run ended without success, as in `wait`.
        """
        run = self.run(run_id)
        self._ended(run)
        return diagnosis.progress(run, namespace=self._pods_in)

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the API gives it, with its tasks.

        Raises:
            LaunchError: there is no such run, or the backend does not answer or refuses.
        """
        with self._get(f"/apis/v2beta1/runs/{urllib.parse.quote(run_id, safe='')}") as response:
            data = response.read()
        try:
            found = json.loads(data)
        except ValueError:
            kind = response.headers.get("Content-Type", "no type")
            remedy = "Check that the endpoint is the API's, and the token: a login page may have answered."
            raise LaunchError(f"the answer is no JSON ({kind})", where=self._where, remedy=remedy) from None
        return dict(found)

    def log(self, run: Mapping[str, Any], part: diagnosis.Part) -> str:
        """The end of a pod's log, from the API or from what the launcher kept in the store; empty where neither has it."""
        return self._log_of_pod(str(run["run_id"]), part.pod) or executor_logs.read(run, part.task)

    def _ended(self, run: Mapping[str, Any]) -> str:
        failed = diagnosis.failure(run, namespace=self._pods_in, log_of=lambda part: self.log(run, part))
        if failed:
            raise failed
        return diagnosis.state(run)

    def _log_of_pod(self, run_id: str, pod: str) -> str:
        """The log of a pod's container `main`, as far as the API can still read it."""
        if not pod:
            return ""
        path = f"/apis/v1alpha1/runs/{urllib.parse.quote(run_id, safe='')}/nodes/{urllib.parse.quote(pod, safe='')}/log"
        end = b""
        try:
            with self._get(path) as response:
                for chunk in response.stream(1 << 16):
                    end = (end + chunk)[-_LOG_BYTES:]
        except LaunchError:
            return ""
        text = end.decode("utf-8", errors="replace")
        # KFP 2.17 says 200 before it looks for the log, then writes its error; a UI in between answers with a page.
        return "" if text.lstrip().startswith(('{"error_message"', "<")) else text

    @contextlib.contextmanager
    def _get(self, path: str) -> Iterator[Any]:
        """The answer to a GET with the client's address, certificates and credentials, not read yet.

        The client's own calls have no time limit, and fail where the API has a word that they do not know.
        """
        import urllib3

        api = self._client._run_api.api_client
        headers = {"Accept": "*/*", **api.default_headers} | ({"Cookie": api.cookie} if api.cookie else {})
        with _api_errors(self._where):
            api.update_params_for_auth(headers, [], ["Bearer"])
            response = api.rest_client.pool_manager.request(
                "GET",
                api.configuration.host + path,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
                preload_content=False,
            )
            try:
                if response.status >= 300:
                    raise _refusal(response.status, response.read().decode("utf-8", errors="replace"), self._where)
                yield response
            finally:
                response.release_conn()

    def schedule(
        self, pipeline: Path, arguments: Mapping[str, Any], *, experiment: str, name: str, cron: str, service_account: str = ""
    ) -> Scheduled:
        """Run the pipeline by the clock; a schedule of the same name in the experiment is replaced.

        A recurring run cannot be changed: the new one is made first, then the old ones are disabled, so that there is always
        one. Deleting one deletes the run of it that is under way, pods and all, so an old one goes only when it has none;
        else it stays, disabled, until the next call. Its runs never take a step from the cache: their parameters are always
        the same, the data is not.

        Args:
            cron: six fields, seconds first.

        Raises:
            ConfigError: the cron text does not have six fields, or an argument does not have the declared type.
        """
        check_cron(cron)
        backend_inputs.check_arguments(pipeline, arguments)
        with _api_errors(self._where):
            experiment_id = self._experiment(experiment)
            old = list(self._schedules(experiment_id, name))
            made = self._client.create_recurring_run(
                experiment_id=experiment_id,
                job_name=name,
                cron_expression=cron,
                no_catchup=True,
                max_concurrency=1,
                pipeline_package_path=str(pipeline),
                params=dict(arguments),
                enable_caching=False,
                service_account=service_account or None,
            )
            waiting = []
            for recurring_run_id in old:
                self._client.disable_recurring_run(recurring_run_id)
                if self._has_open_run(experiment_id, recurring_run_id):
                    waiting.append(recurring_run_id)
                else:
                    self._client.delete_recurring_run(recurring_run_id)
        return Scheduled(str(made.recurring_run_id), [one for one in old if one not in waiting], waiting)

    def _experiment(self, name: str) -> str:
        return str(self._client.create_experiment(name=name, namespace=self._namespace).experiment_id)

    def _schedules(self, experiment_id: str, name: str) -> Iterator[str]:
        for one in self._listed(self._client.list_recurring_runs, "recurring_runs", experiment_id, "display_name", name):
            if one.display_name == name:
                yield str(one.recurring_run_id)

    def _has_open_run(self, experiment_id: str, recurring_run_id: str) -> bool:
        runs = self._listed(self._client.list_runs, "runs", experiment_id, "recurring_run_id", recurring_run_id)
        return any(run.recurring_run_id == recurring_run_id and str(run.state) not in diagnosis.ENDED for run in runs)

    def _listed(self, ask: Callable[..., Any], kind: str, experiment_id: str, key: str, value: str) -> Iterator[Any]:
        """What the API lists of an experiment, page by page, where a field has a value."""
        wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})
        token = ""
        while True:
            page = ask(page_token=token, page_size=_PAGE, experiment_id=experiment_id, filter=wanted)
            yield from getattr(page, kind) or []
            token = page.next_page_token
            if not token:
                return


def check_cron(cron: str) -> None:
    """Raise ConfigError unless the text has the six fields that the backend's scheduler reads (seconds first)."""
    if len(cron.split()) != 6 or not re.fullmatch(r"[\w*?/,\- #]+", cron):
        raise ConfigError(
            f"{cron!r} does not have six fields",
            where="--cron",
            remedy="Write second, minute, hour, day, month, weekday: '0 30 3 * * *' is half past three every day.",
        )


@contextlib.contextmanager
def _api_errors(where: str) -> Iterator[None]:
    """Turn the client's errors into ours, and keep what it prints to itself."""
    import kfp_server_api
    import urllib3

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except kfp_server_api.ApiException as error:
        raise _refusal(error.status or 0, str(error.body or error.reason), where) from error
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:  # the latter: the client's own, after five tries
        reason = str(getattr(error, "reason", None) or error)
        raise _Unanswered(
            f"the backend cannot be reached: {reason}", where=where, remedy="Check the endpoint and the port-forward."
        ) from error


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Within the block nothing is logged: the client logs a traceback for each of its tries to reach the backend."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _refusal(status: int, text: str, where: str) -> LaunchError:
    """An HTTP status that is no success, as an error of ours; one that may pass is `_Unanswered`."""
    text = " ".join(text.split())[:500]
    if status in _AWAY:
        return _Unanswered(f"the backend is not there ({status}): {text}", where=where, remedy="Try again in a while.")
    return LaunchError(f"the backend refused ({status}): {text}", where=where, remedy="Check endpoint, namespace and token.")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:g} s"
