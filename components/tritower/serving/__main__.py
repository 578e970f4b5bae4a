"""`python -m tritower.serving serve --bundle LOCATION`: a search in, ranked jobs out, over HTTP."""

import argparse
import json
import os
import sys
from typing import Any

from tritower import child, logs
from tritower import config as knobs
from tritower.errors import TritowerError
from tritower.serving.config import ServeConfig

_ONE = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""A search is computed by one thread; several searches by several. Libraries that split one up only get in their way."""


def main() -> int:
    """Run a command; 1 when it fails with an error of tritower's own, which the log ends with."""
    parser = argparse.ArgumentParser(prog="python -m tritower.serving", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer searches over HTTP until SIGTERM")
    serve.add_argument("--bundle", required=True, help="location of the bundle; a new one there is taken while it serves")
    serve.add_argument("--other", default="", help="location of a second bundle, to compare with")
    for name in ("host", "port", "workers"):
        serve.add_argument(f"--{name}", help=f"the knob {name}")
    serve.add_argument("--config", default="{}", help="knobs of ServeConfig as JSON")
    making = commands.add_parser("bundle", help="make what a server loads, of the folders of one training run")
    for name in ("model", "encoder", "dataset", "embeddings", "features", "out"):
        making.add_argument(f"--{name}", required=True, help="folder to write" if name == "out" else f"folder of the {name}")
    making.add_argument("--entities", default="", help="folder of the entities; empty where the features have none")
    making.add_argument("--state", default="", help="folder of the state after the last event; empty for that of the features")
    values = vars(parser.parse_args())
    logs.setup()
    try:
        if values.pop("command") == "bundle":
            return _bundle(values)
        plain = {name: values[name] for name in ("host", "port", "workers") if values[name] is not None}
        _serve(values["bundle"], values["other"], knobs.from_dict(ServeConfig, values["config"], plain=plain))
    except TritowerError as error:
        print(*logs.lines(error), sep="\n", file=sys.stderr, flush=True)
        child.report(error)
        return 1
    return 0


def _bundle(folders: dict[str, Any]) -> int:
    """Make a bundle and print its version."""
    from tritower.serving import step

    print(step.bundle(**folders)["version"], flush=True)
    return 0


def _serve(bundle: str, other: str, config: ServeConfig) -> None:
    from tritower import processes

    for name in _ONE:
        os.environ.setdefault(name, "1")
    if config.workers > 1:
        from tritower.serving import workers

        one = knobs.to_dict(config) | {"workers": 1}
        command = ["serve", "--bundle", bundle, "--other", other, "--config", json.dumps(one)]
        workers.serve(processes.module("tritower.serving", *command), config)
        return
    from tritower import threads
    from tritower.serving import page, server, watching
    from tritower.serving.holder import MAIN, Holder

    holder = Holder(streams=config.threads or threads.available())
    places = {}
    for name, location in ((MAIN, bundle), ("other", other)):
        if location:
            places[name] = (location, watching.tag(location))
            holder.swap(location, name)
    server.run(holder, places, config, mounts=[page.mount])


if __name__ == "__main__":
    sys.exit(main())
