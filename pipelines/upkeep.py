"""The verbs `champion` and `clean`: what runs left, which of it is in use, and what may go."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tritower import storage
from tritower.champion import kept, pointer
from tritower.errors import ArtifactError, ConfigError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs to the command line."""
    command = commands.add_parser("champion", help="say which model is in use and where its state ends, or name another")
    command.add_argument("root", metavar="ROOT", help="where the pointer champion.json is: a folder, s3://, minio://, gs://")
    command.add_argument(
        "--set-model", default="", metavar="WHERE", help="make this ranker the champion, whatever any gate says"
    )
    command.add_argument("--set-encoder", default="", metavar="WHERE", help="the text encoder that it was trained with")
    command.add_argument("--set-state", default="", metavar="WHERE", help="the state of the same run; else from nothing")
    command.set_defaults(do=_champion)

    command = commands.add_parser("clean", help="say which old runs under a root nobody needs; with --yes remove them")
    command.add_argument("--root", default="build/run", metavar="WHERE", help="of the runs; also s3://, minio:// (build/run)")
    command.add_argument("--older", default="30d", metavar="TIME", help="what is younger stays: days or weeks (30d)")
    command.add_argument("--keep", type=int, default=5, metavar="N", help="newest runs of each pipeline that stay (5)")
    command.add_argument(
        "--champion", action="append", default=[], metavar="ROOT", help="a pointer that is not under the root; may be repeated"
    )
    command.add_argument("--no-champion", action="store_true", help="no pointer is kept for these runs")
    command.add_argument("--yes", action="store_true", help="remove what the same call without it has listed")
    command.set_defaults(do=_clean)


def _champion(options: argparse.Namespace) -> int:
    given = (options.set_model, options.set_encoder)
    if any(given) or options.set_state:
        if not all(given):
            remedy = "Give --set-model and --set-encoder, of one run."
            raise ConfigError("a champion is a model with its encoder", where=kept.file(options.root), remedy=remedy)
        _set(options)
    print(*_shown(kept.read(options.root)), sep="\n")
    return 0


def _set(options: argparse.Namespace) -> None:
    """Write a pointer by hand; everything that it is to name must be there."""
    model, encoder, state = (_there(place) for place in (options.set_model, options.set_encoder, options.set_state))
    new = pointer.Champion(version=1, ranker_model=model, encoder=encoder, run="by hand", at=kept.now())
    left = _state(state) if state else None

    def decide(now: pointer.Pointer) -> pointer.Move:
        same = now.champion and (now.champion.ranker_model, now.champion.encoder) == (model, encoder)
        return pointer.Move(replace(now, state=left), "") if same else pointer.promoted(now, new, left)

    kept.move(options.root, decide)


def _there(place: str) -> str:
    """The location as a run elsewhere reads it; an error where nothing is."""
    if not place:
        return ""
    if storage.is_local(place):
        place = str(storage.local_path(place).absolute())
    storage.list_files(place)
    return place.rstrip("/")


def _state(place: str) -> pointer.State:
    found = storage.read_small(f"{place}/state.json")
    try:
        ends = int(json.loads(found[0] if found else b"")["last_ts"])
    except (ValueError, KeyError, TypeError):
        remedy = "Give the folder `state` of a run of training or batch."
        raise ArtifactError("this is no state of the features", where=f"{place}/state.json", remedy=remedy) from None
    return kept.state(place, ends, run="by hand")


def _shown(now: pointer.Pointer) -> Iterator[str]:
    for title, one in (("champion", now.champion), ("the one before", now.previous)):
        if not one:
            yield f"{title}: none"
            continue
        auc = f", AUC {one.auc:.4f}" if one.auc is not None else ""
        yield f"{title}: version {one.version}, promoted {one.at or 'at an unknown time'}, run {one.run or 'unknown'}{auc}"
        yield f"  ranker_model  {one.ranker_model}"
        yield f"  encoder       {one.encoder}"
    if now.state:
        yield f"state: reaches to {now.state.reaches_to}, run {now.state.run or 'unknown'}"
        yield f"  state         {now.state.location}"
    else:
        yield "state: none, the next run starts from nothing"


def _clean(options: argparse.Namespace) -> int:
    from pipelines import cleaning

    root = options.root.rstrip("/") or "/"
    older_s = cleaning.seconds(options.older)
    pointers = cleaning.pointers(root, options.champion)
    if not pointers and not options.no_champion:
        raise ConfigError(
            "no pointer is below the root, and none is named: a model in use could be removed",
            where=root,
            remedy="Name its root by --champion, or say --no-champion where none is kept.",
        )
    named = cleaning.in_use(pointers) + cleaning.results(_notes(root), keep=options.keep)
    planned = cleaning.plan(root, older_s=older_s, keep=options.keep, named=named)
    for one in planned:
        stays = f"stays: {one.kept_for}" if one.kept_for else "goes"
        written = f"{datetime.fromtimestamp(one.newest_s, UTC):%Y-%m-%d %H:%M}"
        print(f"{written}  {_size(one.bytes):>9}  {one.folder}  {stays}")
    going = [one for one in planned if not one.kept_for]
    print(f"{len(going)} of {len(planned)} folders go, {_size(sum(one.bytes for one in going))}")
    if not options.yes:
        print("Nothing was removed. The same call with --yes removes what goes.")
        return 0
    cleaning.finish(root)
    for one in going:
        if by := cleaning.named_by(root, one.folder, cleaning.in_use(pointers)):  # set by hand since
            print(f"{one.folder} stays: named by {by}")
            continue
        cleaning.remove(root, one)
        print(f"removed {one.folder}", flush=True)
    return 0


def _notes(root: str) -> Path:
    """The folder in which runs on this machine under this root leave their notes."""
    from pipelines import running, staged

    return storage.local_path(root) if storage.is_local(root) else staged.folder(root, running.KEPT)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
