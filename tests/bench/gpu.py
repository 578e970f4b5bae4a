"""What one GPU does, in a run of under eight minutes: `python tests/bench/gpu.py`. Prints tables, writes build/bench/gpu.json.

Every ratio is of sides that ran in turn in this run. Where there is no GPU it says so and measures nothing; with `--tiny
--device cpu` every part runs on a CPU in under a minute, to see that it runs. What is not begun in time is left out, and said.
"""

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
LIMIT_S = 450.0


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU gets through in seconds")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help=f"seconds after which nothing more is begun ({LIMIT_S:g})")
    parser.add_argument("--only", choices=("finetune", "embed", "ranker"), help="one part alone")
    parser.add_argument("--out", type=Path, default=Path("build/bench/gpu.json"))
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(given.device)}
    print(*(f"{name}: {value}" for name, value in found["machine"].items()), sep="\n", flush=True)
    if given.device == "cuda" and not torch.cuda.is_available():
        found["skipped"] = f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU here"
        print(f"skipped: {found['skipped']}")
    else:
        device = torch.device("cuda", 0) if given.device == "cuda" else torch.device("cpu")
        measure(device, found, tiny=given.tiny, only=given.only, limit_s=given.limit)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"figures in {given.out}")


def measure(device: torch.device, found: dict[str, Any], *, tiny: bool, only: str | None, limit_s: float) -> None:
    """Run the parts one after another into `found`; one that fails leaves its reason and the others go on."""
    import gpu_encoder
    import gpu_ranker
    from tritower.encoder import devices

    devices.make_ready(device)
    encoder_size = gpu_encoder.TINY if tiny else gpu_encoder.Size()
    ranker_size = gpu_ranker.TINY if tiny else gpu_ranker.Size()
    begun = time.monotonic()
    # Shares of the time that each part may begin something new in: the ranker's last part is a compilation, which can be long.
    parts: dict[str, tuple[float, Callable[[float], Any], Callable[[Any], str]]] = {
        "finetune": (0.35, lambda until: gpu_encoder.finetuning_rows(device, encoder_size, until), encoder_table),
        "embed": (0.55, lambda until: gpu_encoder.embedding_rows(device, encoder_size, until), encoder_table),
        "ranker": (
            1.0,
            lambda until: gpu_ranker.figures(device, ranker_size, compiled=not tiny, until=until),
            gpu_ranker.table,
        ),
    }
    for name, (share, part, table) in parts.items():
        if only not in (None, name):
            continue
        start = time.monotonic()
        try:
            found[name] = part(begun + share * limit_s)
            print(f"\n## {name}\n\n{table(found[name])}", flush=True)
        except Exception as error:
            traceback.print_exc()
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        found.setdefault("seconds", {})[name] = time.monotonic() - start
        if device.type == "cuda":
            gpu_encoder.free(device)


def encoder_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: how many times the fastest side of the library ours is, then what each side does in a second."""
    lines = ["| | ratio, first round | ratio, warm | per second, each side | GiB | more |", "|---|---|---|---|---|---|"]
    for row in rows:
        rates = row.get("texts_per_s") or row["triplets_per_s"]
        first, warm = (row["ratio_first"], row["ratio"]) if "texts_per_s" in row else (row["ratio"], row["ratio_warm"])
        each = "; ".join(f"{side} {rate:,.0f}" for side, rate in rates.items())
        names = ("busy_share", "product_share", "limit_share", "ratio_same_bits", "same_losses_twice", "best_batch")
        more = "; ".join(f"{name} {_short(row[name])}" for name in names if row.get(name) is not None)
        gib = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        lines.append(f"| {row['name']} | {first:.2f} | {warm:.2f} | {each} | {gib} | {more} |")
    for row in rows:
        curves = {side: " ".join(f"{loss:.3f}" for loss in curve) for side, curve in row.get("curve", {}).items()}
        lines += [f"\n{row['name']}, loss by tenths: {side}: {curve}" for side, curve in curves.items()]
    return "\n".join(lines)


def machine(kind: str) -> dict[str, Any]:
    """The versions and the card that the figures are of."""
    about: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    about |= {name: metadata.version(name) for name in ("sentence-transformers", "transformers")}
    driver = Path("/proc/driver/nvidia/version")
    about["driver"] = driver.read_text().splitlines()[0].strip() if driver.exists() else None
    if kind == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        about |= {"gpu": properties.name, "gpu_gib": properties.total_memory / 2**30, "cudnn": torch.backends.cudnn.version()}
        about["capability"] = f"{properties.major}.{properties.minor}"
    return about


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
