"""The commands that talk to a Kubeflow Pipelines backend: publish, submit, schedule, status, diagnose, terminate."""

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import Any

from tritower.errors import JobFailed

from pipelines import experiments, options, runs, schedules, standing, versions, webhook
from pipelines.api import Api


def add(commands: Any) -> None:
    """Add the commands to the parser's."""
    add_to, add_option = commands.add_parser, options.add
    command = add_to("publish", help="upload pipelines to a backend as versions that runs and schedules name")
    command.add_argument("files", nargs="*", type=Path, metavar="YAML", help="compiled pipelines (the kept ones)")
    add_option(command, "--version", "its name (the tag of the images in the YAML)", "", "NAME")
    _add_backend(command)
    command.set_defaults(do=_publish)

    command = add_to("submit", help="run a published pipeline on a backend")
    _add_run(command)
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever was run before")
    command.add_argument("--wait", action="store_true", help="until the run has ended; says why it failed")
    add_option(command, "--data-version", "changes when the data do; else they are read from here", "", "TEXT")
    _add_webhook(command)
    command.set_defaults(do=_submit)

    command = add_to("schedule", help="run a published pipeline there by the clock")
    command.add_argument("--cron", required=True, help="six fields, seconds first: '0 30 3 * * *'")
    _add_run(command)
    command.set_defaults(do=_schedule)

    command = add_to("status", help="say how runs and schedules on a backend stand, and tidy replaced schedules away")
    command.add_argument("run", nargs="?", default="", metavar="RUN", help="one run; else the newest of the experiment")
    add_option(command, "--experiment", "its name (tritower)", "tritower", "NAME")
    add_option(command, "--most", "runs to show (10)", 10, "N")
    _add_webhook(command)
    _add_backend(command)
    command.set_defaults(do=_status)

    for name, do, text in (
        ("diagnose", _diagnose, "say where a run on a backend is, or which step failed and why"),
        ("terminate", _terminate, "end a run on a backend, and wait until it has ended"),
    ):
        command = add_to(name, help=text)
        command.add_argument("run", metavar="RUN", help="its id, as submit printed it")
        _add_backend(command)
        command.set_defaults(do=do)


def _publish(given: argparse.Namespace) -> int:
    from pipelines import compiling

    api = _api(given)
    for file in given.files or [compiling.yaml_path(name) for name in compiling.WIRED]:
        made = versions.publish(api, file, pipeline=file.stem, name=given.version)
        print(f"{made.pipeline} {made.name}: {'published' if made.is_new else 'there already, with the same content'}")
    return 0


def _submit(given: argparse.Namespace) -> int:
    from pipelines import running, submission

    url = webhook.address(given.webhook)
    locations, file = _checked_locations(given)
    read = {name: place for name, place in locations.items() if name not in running.KEPT_BY_RUNS}
    data_version, remark = submission.version(read, given.data_version)
    # A run of a version takes the version's caching; data of a version of their own are in no cache.
    values = options.arguments(given, locations, f"{data_version}-{runs.EACH_RUN}" if given.no_cache else data_version)
    api = _api(given)
    version = _version(api, given, file)
    name = given.name or f"{version.pipeline} {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M}, data {data_version}"
    run_id = runs.submit(
        api,
        version,
        values,
        experiment=given.experiment,
        name=name,
        about=given.about or _about(api, given.pipeline, version, locations),
        service_account=given.service_account,
    )
    if remark:
        print(remark, file=sys.stderr)
    try:
        print(run_id, flush=True)
        if given.wait:
            print(_ended(api, runs.wait(api, run_id), url))
    except KeyboardInterrupt:
        print(f"\nNo longer followed; the run goes on. python -m pipelines diagnose {run_id}", file=sys.stderr)
        return 130
    return 0


def _schedule(given: argparse.Namespace) -> int:
    schedules.check_cron(given.cron)
    locations, file = _checked_locations(given)
    # The parameters of all runs are the same, their data are not: each run's data have a version of their own.
    values = options.arguments(given, locations, runs.EACH_RUN)
    api = _api(given)
    version = _version(api, given, file)
    done = schedules.schedule(
        api,
        version,
        values,
        experiment=given.experiment,
        name=given.name or version.pipeline,
        cron=given.cron,
        about=given.about or _about(api, given.pipeline, version, locations),
        service_account=given.service_account,
    )
    print(done.made + (f" (replaces {', '.join(done.deleted)})" if done.deleted else ""))
    for one in done.waiting:
        print(f"{one} is disabled. A run of it is under way and would go with it: `status` deletes it after that run")
    return 0


def _status(given: argparse.Namespace) -> int:
    url = webhook.address(given.webhook)
    api = _api(given)
    if given.run:
        run = runs.get(api, given.run)
        print(standing.line(api, run))
        if runs.has_ended(run):
            _ended(api, run, url)
        return 0
    lines = standing.status(api, given.experiment, most=given.most)
    print(*(lines or [f"no runs in the experiment {given.experiment}"]), sep="\n")
    if planned := schedules.lines(api, given.experiment):
        print("schedules:", *planned, sep="\n")
    return 0


def _diagnose(given: argparse.Namespace) -> int:
    print(*runs.diagnose(_api(given), given.run), sep="\n")
    return 0


def _terminate(given: argparse.Namespace) -> int:
    print(runs.terminate(_api(given), given.run))
    return 0


def _ended(api: Api, run: dict[str, Any], url: str) -> str:
    """The state of a run that has ended; the webhook is told first.

    Raises:
        JobFailed: it ended without success.
    """
    failed: JobFailed | None = runs.failure(api, run)
    if url and (problem := webhook.post(url, standing.outcome(api, run, failed))):
        print(problem, file=sys.stderr)
    if failed:
        raise failed
    return standing.ended(api, run)


def _version(api: Api, given: argparse.Namespace, file: Path) -> versions.Version:
    """The version to run: the one that is named; else that of this checkout, published if it is not there."""
    name = options.variant(given)
    if given.version:
        return versions.find(api, pipeline=name, name=given.version)
    return versions.publish(api, file, pipeline=name)


def _about(api: Api, pipeline: str, version: versions.Version, locations: dict[str, str]) -> str:
    """The description of a run or a schedule: which model serves or is to be beaten, which version, on which data."""
    root, model = locations.get("model_champion", ""), locations.get("model_ranker", "")
    used = standing.of_champion(root) if root and not model else standing.of_model(api, model) if model else ""
    words = [f"{'Serves' if pipeline == 'batch' else 'Compared with'}: {used}." if used else "", f"Version {version.name}."]
    words += [f"{name}: {place}." for name, place in locations.items() if place and not name.startswith("model_")]
    return experiments.cut(" ".join(word for word in words if word))


def _checked_locations(given: argparse.Namespace) -> tuple[dict[str, str], Path]:
    """The locations of a run on a backend, as far as its pods can open them, and the compiled pipeline."""
    from pipelines import submission

    locations = options.locations(given)
    submission.check_locations(locations)
    return locations, options.compiled(given)


def _api(given: argparse.Namespace) -> Api:
    return Api(given.endpoint, namespace=given.namespace)


def _add_run(command: argparse.ArgumentParser) -> None:
    options.add_data(command)
    options.add(command, "--version", "run this published version (that of this checkout, published if need be)", "", "NAME")
    options.add(command, "--experiment", "its name (tritower)", "tritower", "NAME")
    options.add(command, "--name", "of the run or schedule (pipeline, time and data version; the pipeline)", "", "NAME")
    options.add(command, "--about", "description of the run or schedule (model, version, data)", "", "TEXT")
    options.add(command, "--service-account", "of the run's pods", "", "NAME")
    _add_backend(command)


def _add_backend(command: argparse.ArgumentParser) -> None:
    options.add(command, "--endpoint", "address of the API, or KF_PIPELINES_ENDPOINT", "", "URL")
    options.add(
        command, "--namespace", "the user's, where the backend serves several; of the run's pods (kubeflow)", "", "NAME"
    )


def _add_webhook(command: argparse.ArgumentParser) -> None:
    text = f"post the outcome of the run as JSON to this address, or {webhook.VARIABLE}"
    options.add(command, "--webhook", text, "", "URL")
