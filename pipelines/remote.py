"""`submit` and `schedule`: the compiled pipeline on a Kubeflow Pipelines backend.

Endpoint and token come from the command line or from KF_PIPELINES_ENDPOINT and KF_PIPELINES_TOKEN; inside a cluster the
client finds the service by itself.
"""

import contextlib
import io
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tritower.errors import ConfigError, JobFailed, LaunchError

_FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_PAGE = 100


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
        self._where = endpoint or os.environ.get("KF_PIPELINES_ENDPOINT", "the cluster's own service")
        with warnings.catch_warnings(), _api_errors(self._where):
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
        """
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

    def wait(self, run_id: str, *, poll_s: float = 10.0) -> str:
        """Follow a run until it ends; returns its state.

        The client's own waiting knows no CANCELED and takes FAILED for an answer, so the state is read here.

        Raises:
            JobFailed: the run ended without success.
        """
        while True:
            with _api_errors(self._where):
                run = self._client.get_run(run_id)
            state = str(run.state or "PENDING")
            if state in _FINAL:
                break
            time.sleep(poll_s)
        if state not in ("SUCCEEDED", "SKIPPED"):
            detail = f": {run.error.message}" if run.error and run.error.message else ""
            raise JobFailed(f"the run ended {state}{detail}", where=run_id, remedy="Open the run to see which step failed.")
        return state

    def schedule(
        self, pipeline: Path, arguments: Mapping[str, Any], *, experiment: str, name: str, cron: str, service_account: str = ""
    ) -> tuple[str, list[str]]:
        """Run the pipeline by the clock; a schedule of the same name in the experiment is replaced.

        A recurring run cannot be changed: the new one is made first, then the old ones are deleted, so that there is
        always one. Its runs never take a step from the cache: their parameters are always the same, the data is not.

        Args:
            cron: six fields, seconds first.

        Returns:
            The new schedule's id, and the ids of those it replaced.

        Raises:
            ConfigError: the cron text does not have six fields.
        """
        check_cron(cron)
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
            for recurring_run_id in old:
                self._client.delete_recurring_run(recurring_run_id)
        return str(made.recurring_run_id), old

    def _experiment(self, name: str) -> str:
        return str(self._client.create_experiment(name=name, namespace=self._namespace).experiment_id)

    def _schedules(self, experiment_id: str, name: str) -> Iterator[str]:
        wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
        token = ""
        while True:
            page = self._client.list_recurring_runs(
                page_token=token, page_size=_PAGE, experiment_id=experiment_id, filter=wanted
            )
            yield from (str(one.recurring_run_id) for one in page.recurring_runs or [] if one.display_name == name)
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
        text = str(error.body or error.reason).strip()
        raise LaunchError(
            f"the backend refused ({error.status}): {text[:500]}", where=where, remedy="Check endpoint, namespace and token."
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise LaunchError(
            f"the backend cannot be reached: {error}", where=where, remedy="Check the endpoint and the port-forward."
        ) from error
