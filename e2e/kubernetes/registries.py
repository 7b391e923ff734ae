"""Registries inside the node's network: Debian's docker-registry, open or with a password, and one whose wire is slow.

Tests push from outside, through a registry of a moment that listens on this process's loopback and has the same data folder.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from e2e.kubernetes import throttle
from e2e.kubernetes.init import ADDRESS
from e2e.kubernetes.node import until
from e2e.registry import make_htpasswd, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.kubernetes.node import Node
    from e2e.registry import Registry


@dataclass(frozen=True, slots=True)
class NodeRegistry:
    """One registry. ``name`` is its service on the node; ``host`` is what references begin with."""

    node: Node
    name: str
    port: int
    data: Path
    """The folder that holds its content, of which several registries may be views."""

    @property
    def host(self) -> str:
        return f"{ADDRESS}:{self.port}"

    def add(self, *, username: str | None = None, password: str | None = None) -> None:
        """Make it known to the node as a service; ``start`` starts it."""
        folder = self.node.machine.folder / "conf" / self.name
        folder.mkdir()
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": True}, "level": "info", "formatter": "json"},
            "storage": {"filesystem": {"rootdirectory": str(self.data / "data"), "maxthreads": 100}},
            "http": {"addr": f":{self.port}"},
        }
        if username is not None and password is not None:
            config["auth"] = {"htpasswd": {"realm": "node", "path": str(make_htpasswd(folder, username, password))}}
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        self.node.commands[self.name] = (_program(), "serve", str(folder / "config.yml"))
        # containerd, for image volumes, wants to be told that there is no TLS.
        hosts = self.node.machine.folder / "conf" / "certs.d" / self.host
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(f'server = "http://{self.host}"\n')

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.node.start(self.name)
        until(f"{self.name} answers", self._answers, within=20)

    def stop(self) -> None:
        """Stop it: connections are refused from now on."""
        self.node.stop(self.name)

    def running(self) -> bool:
        """Whether it runs."""
        return self.name in self.node.services and self.node.services[self.name].running

    @contextmanager
    def pushing(self) -> Iterator[Registry]:
        """A registry to push to from outside; ``seen_inside`` says what its references are called on the node."""
        with running_registry(self.data) as outside:
            yield outside

    def seen_inside(self, reference: str) -> str:
        """The reference on the node of what was pushed to ``pushing``."""
        return f"{self.host}/{reference.partition('/')[2]}"

    def served(self) -> Counter[str]:
        """Bytes of blobs that it has sent, by digest, since its log begins."""
        sent: Counter[str] = Counter()
        for answer in self._answered():
            uri = str(answer["http.request.uri"])
            if "/blobs/" in uri and answer["http.request.method"] == "GET":
                sent[uri.rpartition("/")[2]] += int(answer.get("http.response.written", 0))
        return sent

    def size(self, digest: str) -> int:
        """Bytes of a blob that it has."""
        algorithm, _, encoded = digest.partition(":")
        return (self.data / "data/docker/registry/v2/blobs" / algorithm / encoded[:2] / encoded / "data").stat().st_size

    def requests(self, text: str = "") -> int:
        """How many requests with ``text`` in their path it has answered."""
        return sum(text in str(answer["http.request.uri"]) for answer in self._answered())

    def _answered(self) -> Iterator[dict[str, str]]:
        log = self.node.machine.log(self.name)
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            if '"http.response.status"' in line:
                yield json.loads(line)

    def _answers(self) -> bool:
        url = f"http://{self.host}/v2/"
        return "200" in self.node.machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url, check=False) or self._asks()

    def _asks(self) -> bool:
        """Whether it answers by asking for a password."""
        url = f"http://{self.host}/v2/"
        return "401" in self.node.machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url, check=False)


@dataclass(frozen=True, slots=True)
class SlowWire:
    """A port of the node that leads to a registry, with so many bytes a second for all connections together."""

    node: Node
    registry: NodeRegistry
    port: int
    name: str = "slow-wire"

    @property
    def host(self) -> str:
        return f"{ADDRESS}:{self.port}"

    def start(self, rate: int) -> None:
        """Let bytes through from now on."""
        self.set_rate(rate)
        self.node.commands[self.name] = (sys.executable, throttle.__file__, str(self.port), str(self.registry.port), str(self._rate))
        self.node.start(self.name)

    def set_rate(self, rate: int) -> None:
        """Change the bytes a second; 0 is none."""
        self._rate.write_text(str(rate))

    def seen_here(self, reference: str) -> str:
        """What a reference of the registry is called through this port."""
        return f"{self.host}/{reference.partition('/')[2]}"

    @property
    def _rate(self) -> Path:
        return self.node.machine.folder / "conf" / f"{self.name}.rate"


def _program() -> str:
    found = shutil.which("docker-registry")
    if found is None:
        msg = "docker-registry is not installed; run .ci/setup"
        raise RuntimeError(msg)
    return found
