"""An engine over a real store and real mounts, and a registry in this process."""

from __future__ import annotations

import base64
import json
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Config, Pull, RegistryHost, Views
from csi_model.volumes.engine import Engine, open_engine
from csi_model.volumes.observer import tell_nobody
from csi_model.volumes.request import VolumeRequest
from tests.fakes.registry import BasicAuth, FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from csi_model.volumes.observer import Tell

USER, PASSWORD = "ann", "correct horse battery"


@dataclass
class Node:
    """A node's state directory and target directory, and the engine that is open on it."""

    folder: Path
    config: Config
    engine: Engine | None = None

    def publish(self, reference: str, name: str = "a", *, volume: str | None = None, wait: float = 20, **more: object) -> Path:
        """Publish at the target ``name`` and return its path; ``secrets`` and attributes by keyword."""
        assert self.engine is not None
        secrets: Mapping[str, str] = more.pop("secrets", {})  # type: ignore[assignment]
        tell: Tell = more.pop("tell", tell_nobody)  # type: ignore[assignment]
        attributes = {"reference": reference, **{key: str(value) for key, value in more.items()}}
        target = self.target(name)
        self.engine.volumes.publish(
            volume_id=volume or name,
            target=str(target),
            request=VolumeRequest.parse(attributes),
            secrets=secrets,
            deadline=time.monotonic() + wait,
            tell=tell,
        )
        return target

    def unpublish(self, name: str = "a", *, volume: str | None = None) -> None:
        assert self.engine is not None
        self.engine.volumes.unpublish(volume_id=volume or name, target=str(self.target(name)))

    def target(self, name: str) -> Path:
        return self.folder / "targets" / name

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """Open the engine; leaving it is an orderly stop."""
        with open_engine(self.folder / "state", self.config, targets=self.folder / "targets", tended=True) as engine:
            self.engine = engine
            yield engine
        self.engine = None


def secret(host: str, *, password: str = PASSWORD) -> dict[str, str]:
    """The data of a pull secret for ``host``."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return {".dockerconfigjson": json.dumps({"auths": {host: {"auth": auth}}})}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def private() -> Iterator[FakeRegistry]:
    with FakeRegistry(auth=BasicAuth({USER: PASSWORD})) as fake:
        yield fake


@pytest.fixture
def halted(tmp_path: Path, registry: FakeRegistry, private: FakeRegistry) -> Node:
    """A node whose driver does not run yet."""
    (tmp_path / "targets").mkdir()
    plain = RegistryHost(plain_http=True)
    config = Config(
        registries={registry.host: plain, private.host: plain},
        pull=Pull(linger=0.2, stall_timeout=5, retries=2, free_space_reserve=0),
        views=Views(idle=0.2),
    )
    return Node(tmp_path, config)


@pytest.fixture
def node(halted: Node) -> Iterator[Node]:
    """A node whose driver runs."""
    with ExitStack() as stack:
        stack.enter_context(halted.running())
        yield halted
