"""A process that pulls is killed at random moments: what it leaves is either verified or resumable."""

from __future__ import annotations

import gzip
import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.oci.digest import Digest
from csi_model.store.store import Store
from tests.fakes.registry import FakeRegistry, Fault
from tests.pull.conftest import noise

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor

CHILD = """
import sys
from pathlib import Path
import structlog
from csi_model.config.model import Config
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.oci.reference import parse_reference
from csi_model.pull.puller import LayerWant, Puller
from csi_model.sources.connect import Connector
from csi_model.store.store import Store

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
root, host, mode, *layers = sys.argv[1:]
wants = []
for layer in layers:
    digest, size, compression = layer.rsplit(",", 2)
    wants.append(LayerWant(Descriptor("x", Digest.parse(digest), int(size)), Compression(compression)))
with Store.open(Path(root), writable=True) as store:
    source = Connector(Config(), loopback_plain_http=True).connect(parse_reference(f"{host}/llm/tiny:v1"))
    puller = Puller(store, free_space_reserve=0)
    print("pulling", flush=True)
    with puller.pull(source, wants, write_mode=WriteMode(mode)) as pull:
        pull.wait(60)
    puller.close()
print("done", flush=True)
"""
ROOT = Path(__file__).parents[2]


class Scene:
    """A slow registry with one layer of each kind, and a state directory that many short-lived processes share in turn."""

    def __init__(self, registry: FakeRegistry, state: Path) -> None:
        self.registry = registry
        self.state = state
        self.raw = registry.add_blob(noise(40 << 20, 1))
        self.packed_text = noise(6 << 20, 2)
        packed = registry.add_blob(gzip.compress(self.packed_text, 1))
        small = [registry.add_blob(noise(100_000, seed)) for seed in range(3, 8)]
        self.layers: list[tuple[Descriptor, str]] = [(self.raw, "none"), (packed, "gzip"), *((layer, "none") for layer in small)]
        registry.add_fault(Fault(drip=(1 << 20, 0.008)))

    def start(self, mode: str) -> subprocess.Popen[str]:
        """A process that has just begun to pull."""
        layers = [f"{layer.digest},{layer.size},{compression}" for layer, compression in self.layers]
        command = [sys.executable, "-c", CHILD, str(self.state), self.registry.host, mode, *layers]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if process.stdout.readline() != "pulling\n":
            process.communicate()
            msg = f"the pulling process ended with {process.returncode}"
            raise AssertionError(msg)
        return process

    def kill(self, mode: str, after: float) -> bool:
        """Kill a pull some seconds after its beginning; whether it was still at it."""
        with self.start(mode) as process:
            time.sleep(after)
            process.kill()
            return process.wait() != 0

    def check(self) -> None:
        """Every content is what its name says, and the next process begins with nothing in ingest but what a layer goes on from."""
        resumable = {f"{layer.digest.hex}-{compression}" for layer, compression in self.layers if compression == "none"}
        for path in (self.state / "content" / "sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        with Store.open(self.state, writable=True):
            assert {path.name for path in (self.state / "ingest").iterdir()} <= resumable

    def finish(self, mode: str) -> None:
        """Pull without being killed, and look at all that should be there."""
        with self.start(mode) as process:
            assert process.wait(60) == 0
        self.check()
        with Store.open(self.state, writable=True) as store:
            text = Digest.of(self.packed_text)
            expected = {layer.digest if compression == "none" else text for layer, compression in self.layers}
            assert set(store.content.digests()) == expected
            assert not list((self.state / "ingest").iterdir())
            for layer, compression in self.layers:
                assert store.state.layer(layer.digest, compression) is not None


def kill_at_random(state: Path, rounds: int, seed: int) -> None:
    """Kill ``rounds`` pulls, check after each, and finish every fifth time."""
    moments, killed = random.Random(seed), 0
    with FakeRegistry() as registry:
        scene = Scene(registry, state)
        for number in range(rounds):
            mode = moments.choice(("buffered", "direct"))
            killed += scene.kill(mode, moments.uniform(0, 0.3))
            scene.check()
            if number % 5 == 4:
                scene.finish(moments.choice(("buffered", "direct")))
                with Store.open(state, writable=True) as store:
                    for digest in store.content.digests():
                        store.content.remove(digest)
    assert killed > rounds // 2


def test_twenty_kills_leave_nothing_corrupt(tmp_path: Path) -> None:
    """After SIGKILL at twenty random moments no content is wrong, and what was begun is finished by the next process."""
    kill_at_random(tmp_path / "state", 20, seed=20)


def test_a_killed_raw_layer_is_not_fetched_twice(tmp_path: Path) -> None:
    """Over three kills, one 40 MiB layer costs little more than its own bytes in all: what was written is used again."""
    with FakeRegistry() as registry:
        scene = Scene(registry, tmp_path / "state")
        scene.layers = [(scene.raw, "none")]
        for _ in range(3):
            assert scene.kill("buffered", 0.12)
        scene.finish("buffered")
        asked = [seen.headers.get("range") for seen in registry.requests(scene.raw.digest.hex)]
        starts = [int(value.removeprefix("bytes=").split("-")[0]) for value in asked if value]
        assert max(starts) >= 8 << 20
        assert starts == sorted(starts)
