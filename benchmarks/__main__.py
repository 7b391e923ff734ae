"""``python -m benchmarks``: pull, mount and read generated models with every contender, in interleaved rounds.

Writes docs/performance.json, the table in docs/performance.md between its markers, and docs/performance.png.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import contenders, report
from benchmarks.models import VARIANTS, Variant, push, weights
from e2e.registry import running_registry

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "csi-model-benchmarks"


def main() -> None:
    """Parse the options, run the rounds, write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--size", type=float, default=4, help="GiB of each model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[variant.name for variant in VARIANTS], help="packings to compare")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with room for three times the size")
    options = parser.parse_args()
    size = int(options.size * (1 << 30))
    programs = contenders.containerd_programs(CACHE)
    results: dict[str, dict[str, list[dict[str, object]]]] = {}
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="cm-bench-", dir=options.folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sparse = folder / "sparse" / "zeros"
        sparse.parent.mkdir()
        registry = stack.enter_context(running_registry(folder / "registry"))
        for variant in VARIANTS:
            if variant.name not in options.only:
                continue
            print(f"== {variant.name}: generating {options.size:g} GiB", flush=True)
            reference = push(registry.host, f"bench/{variant.name.replace(' ', '-')}", variant, size)
            rows: dict[str, list[dict[str, object]]] = {}
            for number in range(options.rounds):
                for name in _contenders(variant, programs):
                    contenders.fill_page_cache(sparse)
                    figures = _run(name, folder / f"run-{number}-{name}", reference, variant, programs)
                    rows.setdefault(name, []).append({**asdict(figures), "durable": figures.durable, "all_read": figures.all_read})
                    print(
                        f"  {number} {name:12} {figures.pulled:6.2f} + {figures.synced:4.2f} sync, read {figures.read:5.2f},"
                        f" cpu {figures.cpu:5.2f} s, written {figures.written / size:4.2f}, rss {figures.peak >> 20} MiB {figures.note}",
                        flush=True,
                    )
            results[variant.name] = rows
            shutil.rmtree(folder / "registry" / "data" / "docker" / "registry" / "v2" / "blobs", ignore_errors=True)
    document = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB, Linux {platform.release()}, Python {platform.python_version()}",
        "load": os.getloadavg()[1],
        "gib": options.size,
        "rounds": options.rounds,
        "sha256": _sha256_per_gib(),
        "results": results,
    }
    (ROOT / "docs" / "performance.json").write_text(json.dumps(document, indent=1) + "\n")
    report.write(document, ROOT / "docs")


def _contenders(variant: Variant, programs: Path | None) -> list[str]:
    names = ["csi-model"]
    if variant.encoding == "raw":
        names.append("curl+openssl")
    elif programs is not None:
        names.append("containerd")
    return [*names, "skopeo"] if shutil.which("skopeo") else names


def _run(name: str, folder: Path, reference: str, variant: Variant, programs: Path | None) -> contenders.Figures:
    if name == "csi-model":
        return contenders.run_driver(folder, reference, path="" if variant.encoding == "raw" else "/models")
    if name == "containerd":
        assert programs is not None
        return contenders.run_containerd(folder, programs, reference)
    if name == "skopeo":
        return contenders.run_skopeo(folder, reference)
    return contenders.run_curl(folder, reference)


def _sha256_per_gib() -> float:
    """CPU seconds that hashing a gibibyte takes here, alone."""
    data = weights(64 << 20, 1)
    times = []
    for _ in range(5):
        began = time.process_time()
        hashlib.sha256(data)
        times.append(time.process_time() - began)
    return statistics.median(times) * 16


if __name__ == "__main__":
    main()
