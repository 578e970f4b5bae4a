"""`python -m tritower.encoder finetune ...`: the process that torchrun and a PyTorchJob start."""

import argparse
import json
import logging
import sys

from tritower import child, logs
from tritower import config as knobs
from tritower.errors import TritowerError


def main() -> int:
    """Run one step from the command line; 1 when it fails with an error of tritower's own."""
    parser = argparse.ArgumentParser(prog="python -m tritower.encoder", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    finetune = steps.add_parser("finetune", help="fine-tune the encoder on the clicks of a dataset")
    finetune.add_argument("--model", required=True, help="location of the folder to write the model to")
    finetune.add_argument("--report", default="", help="location of the HTML file to write")
    finetune.add_argument("--metrics", default="", help="location of the JSON file to write")
    embed = steps.add_parser("embed", help="embed the texts of a dataset")
    embed.add_argument("--embeddings", required=True, help="location of the folder to write the matrix to")
    embed.add_argument("--encoder", default="", help="location or name of the model to use; the config's when empty")
    for step_parser in (finetune, embed):
        step_parser.add_argument("--dataset", required=True, help="location of the folder that ingest wrote")
        step_parser.add_argument("--checkpoints", default="", help="location for checkpoints; whoever gives it clears it")
        step_parser.add_argument("--config", default="{}", help="knobs as JSON")
    values = vars(parser.parse_args())
    logs.setup()
    from tritower.encoder import distributed, step
    from tritower.encoder.config import EmbedConfig, FinetuneConfig

    name, config = values.pop("step"), values.pop("config")
    try:
        if name == "finetune":
            numbers = step.finetune(config=knobs.from_dict(FinetuneConfig, config), **values)
        else:
            numbers = step.embed(config=knobs.from_dict(EmbedConfig, config), **values)
    except TritowerError as error:
        logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
        child.report(error)
        return 1
    finally:
        distributed.leave()
    if numbers:
        json.dump(numbers, sys.stdout, indent=2)
        sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
