"""`python -m tritower.serving serve --bundle LOCATION`: a search in, ranked jobs out, over HTTP."""

import argparse
import contextlib
import json
import os
import sys
from typing import Any

from tritower import child, logs
from tritower import config as knobs
from tritower.errors import ConfigError, TritowerError
from tritower.serving import keeping
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
    serve.add_argument("--feed", default="{}", help="knobs of FeedConfig as JSON: events, experiment, log of what was served")
    making = commands.add_parser("bundle", help="make what a server loads, of the folders of one training run")
    for name in ("model", "encoder", "dataset", "embeddings", "features", "out"):
        making.add_argument(f"--{name}", required=True, help="folder to write" if name == "out" else f"folder of the {name}")
    making.add_argument("--entities", default="", help="folder of the entities; empty where the features have none")
    making.add_argument("--state", default="", help="folder of the state after the last event; empty for that of the features")
    making.add_argument("--baseline", default="", help="folder of an XGBoost baseline to show beside; empty for none")
    keeping.arguments(commands)
    values = vars(parser.parse_args())
    logs.setup()
    try:
        if values["command"] == "bundle":
            return _bundle({name: value for name, value in values.items() if name != "command"})
        if values["command"] != "serve":
            return keeping.run(values)
        plain = {name: values[name] for name in ("host", "port", "workers") if values[name] is not None}
        config = knobs.from_dict(ServeConfig, values["config"], plain=plain)
        _serve(values["bundle"], values["other"], config, values["feed"])
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


def _serve(bundle: str, other: str, config: ServeConfig, feeding: str) -> None:
    from tritower import optional, processes

    with optional.hidden("pandas"):  # pyarrow looks for it once, here, and no answer needs it
        import pyarrow.dataset  # noqa: F401

    from tritower.serving.feed import FeedConfig

    fed = knobs.from_dict(FeedConfig, feeding, where="feed")

    for name in _ONE:
        os.environ.setdefault(name, "1")
    if config.workers > 1:
        from tritower.serving import workers

        if fed.journal and fed.takes_events:
            remedy = "Serve with one worker, or say takes_events=false here and let another server take them."
            raise ConfigError("several workers would write one journal", where="feed.takes_events", remedy=remedy)

        one = knobs.to_dict(config) | {"workers": 1}
        command = ["serve", "--bundle", bundle, "--other", other, "--config", json.dumps(one), "--feed", feeding]
        workers.serve(processes.module("tritower.serving", *command), config)
        return
    from tritower.serving import page, server, watching
    from tritower.serving.feed import Feed
    from tritower.serving.holder import MAIN, Holder

    with contextlib.closing(Feed(fed)) as feed:
        holder = Holder(precision=config.precision, prepare=feed.attach)
        places = {}
        for name, location in ((MAIN, bundle), ("other", other)):
            if location:
                places[name] = (location, watching.tag(location))
                holder.swap(location, name)
        server.run(holder, places, config, mounts=[page.mount, feed.mount])


if __name__ == "__main__":
    sys.exit(main())
