"""``python -m benchmarks``: generate models, serve them, run everybody in turn, write docs/performance.md's tables and the plot."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import contestants, machine, node, report
from benchmarks.generate import MANY_TARS, RAW, TAR, TLS, VARIANTS, RegistryFolder, generate
from e2e.registry import Registry, running_registry, wait_until_listening

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESULTS = Path(__file__).parent / "results.json"
_NODE = {"latency": node.publish_latency, "memory": node.pull_memory, "reading": node.reading}


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    if options.save and importlib.util.find_spec("matplotlib") is None:
        print(
            "the plot needs matplotlib: pip install -c constraints.txt -e '.[bench]', or measure without results (--no-save)",
            file=sys.stderr,
        )
        return 2
    if os.environ.get("CSI_MODEL_BENCH_NAMESPACE") is None:
        # Mounts of a run that was killed vanish with its mount namespace.
        os.environ["CSI_MODEL_BENCH_NAMESPACE"] = "private"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "benchmarks", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.report:
        report.write(results)
        return 0
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not options.keep:
            stack.callback(shutil.rmtree, work, ignore_errors=True)
        if options.redirect:
            stack.enter_context(running_files(contestants.FILES, work / "registry" / "data"))
        registry = stack.enter_context(
            running_registry(work / "registry", redirect=f"http://{contestants.FILES}" if options.redirect else None)
        )
        size = int(options.size * 2**30)
        variants = [variant for variant in VARIANTS if variant in options.only]
        if variants:
            registries = dict.fromkeys(variants, registry)
            if TLS in variants:
                registries[TLS] = stack.enter_context(_running_tls(work, redirect=options.redirect))
            results["rounds"] = {**_facts(size, options.rounds), **_rounds(registries, work, size, options)}
        for name in (name for name in _NODE if name in options.only):
            print(f"{name} …", flush=True)
            results[name] = {**_facts(size, 1), **_NODE[name](registry, work, size)}
            print(json.dumps(results[name]), flush=True)
    if options.save:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        report.write(results)
    return 0


def _rounds(registries: Mapping[str, Registry], work: Path, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Everybody on every variant, each from its registry, one after another, ``options.rounds`` times."""
    everybody: list[contestants.Contestant] = [contestants.Ours(), contestants.OursDirect()]
    version = None
    if "containerd" not in options.without:
        containerd = contestants.Containerd(_cache())
        everybody.append(containerd)
        version = containerd.version
    everybody += [contestants.Curl(), contestants.Skopeo()]
    folder = RegistryFolder(work / "registry")
    memory = machine.Memory(work)
    runs: list[dict[str, Any]] = []
    models = {variant: generate(folder, TAR if variant == TLS else variant, size) for variant in registries}
    for turn in range(options.rounds):
        for variant, registry in registries.items():
            model = models[variant]
            taking_part = [who for who in everybody if _takes_part(who, variant) and who.name not in options.without]
            for who in _in_turn(taking_part, turn):
                with contestants.scratch(work) as place:
                    memory.fill(folder.path(blob.digest) for blob in model.blobs)
                    load = machine.load()
                    result = who.run(registry, model, place)
                run = {"round": turn, "variant": variant, "who": who.name, "load": load, **asdict(result)}
                runs.append(run)
                print(
                    f"round {turn + 1} {variant:12} {who.name:18} ready {result.ready:6.2f} sync {result.synced:5.2f} read {result.read:5.2f} "
                    f"cpu {result.used.cpu:6.2f} peak {result.used.peak >> 20} MiB written {result.used.written / model.weights:.3f}",
                    flush=True,
                )
    return {
        "containerd": version,
        "igzip": shutil.which("igzip") is not None,
        "bytes": {variant: [model.bytes, model.weights] for variant, model in models.items()},
        "sha256": node.sha256_cpu(),
        "runs": runs,
    }


@contextmanager
def _running_tls(work: Path, *, redirect: bool) -> Iterator[Registry]:
    """The registry once more, and the file server where one is wanted, over TLS."""
    folder = work / "registry-tls"
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(work / "registry" / "data")
    with ExitStack() as stack:
        files = f"https://{contestants.FILES_TLS}" if redirect else None
        registry = stack.enter_context(running_registry(folder, tls=True, redirect=files))
        assert registry.ca_file is not None
        if redirect:
            certificate = (registry.ca_file, registry.ca_file.with_suffix(".key"))
            stack.enter_context(running_files(contestants.FILES_TLS, folder / "data", *certificate))
        yield registry


@contextmanager
def running_files(host: str, folder: Path, *certificate: Path) -> Iterator[None]:
    """A file server, a process of its own, that ends with the block; without a certificate and its key it speaks plain HTTP."""
    port = int(host.rpartition(":")[2])
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.files", str(port), str(folder), *map(str, certificate)])
    try:
        wait_until_listening(process, port)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _takes_part(who: contestants.Contestant, variant: str) -> bool:
    if variant == RAW:
        return not isinstance(who, contestants.Containerd)
    if isinstance(who, contestants.OursDirect):
        return variant in {TAR, MANY_TARS}
    return not isinstance(who, contestants.Curl)


def _in_turn(everybody: Sequence[contestants.Contestant], turn: int) -> Iterator[contestants.Contestant]:
    """All of them, in each round another one first: a disk may be slower after those who write much."""
    return (everybody[(turn + n) % len(everybody)] for n in range(len(everybody)))


def _facts(size: int, rounds: int) -> dict[str, Any]:
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(),
        "load": machine.load(),
        "size": size,
        "rounds": rounds,
        "began": time.time(),
    }


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "csi-model-bench" / contestants.CONTAINERD


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", type=float, default=4.0, metavar="GIB", help="bytes of each model (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--only", nargs="+", choices=(*VARIANTS, *_NODE), default=(*VARIANTS, *_NODE), help="what to measure (default all)")
    parser.add_argument("--without", nargs="+", default=(), help="who does not take part, such as skopeo")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/csi-model-bench"), help="where models and stores are made")
    parser.add_argument(
        "--no-redirect",
        dest="redirect",
        action="store_false",
        help="the registry delivers blobs itself, at the cost of who pulls beside it",
    )
    parser.add_argument("--keep", action="store_true", help="keep the generated models for the next time")
    parser.add_argument("--no-save", dest="save", action="store_false", help="print only: leave results and documents as they are")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the documents from the last results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
