"""Run every bench and write build/bench/bench.json: `python tests/bench [name ...]`.

Each `bench_<room>.py` beside this file defines `cases() -> list[dict]` (rows made by `timing.paired`).
"""

import importlib
import json
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).parent
# One thread a side: CPU seconds are compared, and waiting threads of a matrix library would count on whoever calls it.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def main(names: list[str]) -> None:
    """Run the benches whose file name contains one of `names` (all when empty), print a table, write the JSON."""
    sys.path.insert(0, str(HERE))
    from timing import checked

    out = Path("build/bench/bench.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(out.read_text()) if names and out.exists() else []
    for file in sorted(HERE.glob("bench_*.py")):
        if names and not any(name in file.stem for name in names):
            continue
        fresh = [checked(row) for row in importlib.import_module(file.stem).cases()]
        done = {row["name"] for row in fresh}
        rows = [row for row in rows if row["name"] not in done] + fresh
        out.write_text(json.dumps(rows, indent=2) + "\n")
        for row in fresh:
            peer = f"{row['ratio_peer']:.1f}" if row.get("ratio_peer") else "-"
            naive = f"{row['ratio_naive']:.1f}" if row.get("ratio_naive") else "-"
            print(f"{row['name']:28s} ours {row['ours']:.4g} {row['unit']}, naive x{naive}, peer x{peer}", flush=True)
            if parts := [f"{name.removesuffix('_ms')} {row[name]:.3g}" for name in row if name.endswith("_ms")]:
                print(f"{'':28s} ms: {', '.join(parts)}", flush=True)
    print(f"{len(rows)} rows in {out} ({platform.processor() or platform.machine()})")


if __name__ == "__main__":
    main(sys.argv[1:])
