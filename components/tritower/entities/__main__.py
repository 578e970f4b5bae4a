"""Train the small NER, measure recognisers, or try one on a text.

python -m tritower.entities train   [--texts 240000] [--seed 1] [--out FILE]
python -m tritower.entities measure [--gold FILE] [--conll FILE] [--spacy NAME] [--model FILE]
python -m tritower.entities find TEXT...
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tritower import logs
from tritower.entities.config import EntitiesConfig

_SHIPPED = Path(__file__).parent / "data" / "job_ner.gz"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tritower.entities", description="The job NER.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the small NER on synthetic texts")
    train.add_argument("--texts", type=int, default=240_000)
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--out", type=Path, default=_SHIPPED)
    measure = commands.add_parser("measure", help="token F1 against hand-labelled texts, as a Markdown table")
    measure.add_argument("--gold", type=Path, help="JSON Lines with text, split and entities")
    measure.add_argument("--conll", type=Path, help="testset.txt of ner_green2022")
    measure.add_argument("--spacy", default="", help="general spaCy pipeline to compare with")
    measure.add_argument("--model", default="", help="model file; empty for the shipped one")
    find = commands.add_parser("find", help="show the entities of texts")
    find.add_argument("texts", nargs="+")
    given = parser.parse_args(arguments)
    logs.setup()
    if given.command == "train":
        from tritower.entities import model, training

        model.write(training.train(given.texts, given.seed), given.out)
    elif given.command == "measure":
        _measure(given)
    else:
        _find(given.texts)


def _find(texts: Sequence[str]) -> None:
    import pyarrow as pa

    from tritower.entities.recognise import finder

    found = finder(EntitiesConfig()).columns(pa.array(texts))
    for text, spans in zip(texts, found.spans(len(texts)), strict=True):
        print(text)
        for span in spans:
            print(f"  {'  ' if span.inner else ''}{span.label:14s}{text[span.start : span.end]!r} = {span.value}")


def _measure(given: argparse.Namespace) -> None:
    from tritower import vocabulary
    from tritower.entities import measure
    from tritower.entities.recognise import finder

    sets = {}
    if given.gold:
        gold = measure.read_gold(given.gold)
        sets = {f"gold, {split}": [e for e in gold if e.split == split] for split in ("development", "heldout")}
    if given.conll:
        sets["ner_green2022"] = measure.read_conll(given.conll)
    configs = [EntitiesConfig(method=method, ner_model=given.model) for method in ("combined", "gazetteer", "ner")]
    configs += [EntitiesConfig(method="spacy", spacy_model=given.spacy)] if given.spacy else []
    labels = ("TITLE", "SKILL", "SENIORITY", "COMPANY", "PLACE", "EMPLOYMENT", "QUALIFICATION", "all")
    print(f"| set | recogniser | {' | '.join(labels)} |\n|---|---|{'---|' * len(labels)}")
    for name, examples in sets.items():
        conll = name == "ner_green2022"
        kept = ("TITLE", "SKILL", "QUALIFICATION") if conll else labels
        for config in configs:
            scores = measure.token_scores(finder(config, vocabulary.companies()), examples, levels_are_titles=conll)
            cells = [f"{scores[label].f1:.3f}" if label in scores and label in kept else "" for label in labels]
            print(f"| {name} ({len(examples)}) | {config.spacy_model or config.method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
