"""Models in the node's registry: the real one, as ModelPack artifact and as Modelcar image, and made-up ones of any size."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2e import packing

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.registries import NodeRegistry


@dataclass(frozen=True, slots=True)
class Model:
    """What pods ask for, and what they must read."""

    reference: str
    files: dict[str, str]
    """SHA-256 by relative name."""
    size: int
    """Bytes of all files."""

    def through(self, host: str) -> str:
        """The reference by another host that serves the same content."""
        return f"{host}/{self.reference.partition('/')[2]}"


def real_artifact(registry: NodeRegistry) -> Model:
    """The real model as a ModelPack artifact of raw layers."""
    folder = packing.real_model()
    with registry.pushing() as outside:
        return _model(registry, packing.push_modelpack(outside, "llm/minilm", folder), folder)


def real_image(registry: NodeRegistry, work: Path) -> Model:
    """The real model as a Modelcar image, in ``/models``."""
    # Without the files whose names begin with a dot, which model formats leave out as well.
    folder = work / "minilm"
    shutil.copytree(packing.real_model(), folder, ignore=shutil.ignore_patterns(".*"))
    layout = packing.image_layout(folder, work)
    with registry.pushing() as outside:
        return _model(registry, packing.push_image(outside, "cars/minilm", layout), folder)


def made_up(registry: NodeRegistry, name: str, work: Path, *, mebibytes: int, files: int = 4) -> Model:
    """A ModelPack artifact of incompressible weights that no other model shares."""
    folder = _weights(work / name, mebibytes=mebibytes, files=files)
    with registry.pushing() as outside:
        return _model(registry, packing.push_modelpack(outside, f"llm/{name}", folder), folder)


def made_up_image(registry: NodeRegistry, name: str, work: Path, *, mebibytes: int, files: int = 4) -> Model:
    """A Modelcar image of such weights, in one gzip layer, below ``/models``."""
    folder = _weights(work / name, mebibytes=mebibytes, files=files)
    layouts = work / f"{name}-layout"
    layouts.mkdir()
    layout = packing.image_layout(folder, layouts)
    with registry.pushing() as outside:
        return _model(registry, packing.push_image(outside, f"cars/{name}", layout), folder)


def _weights(folder: Path, *, mebibytes: int, files: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(files):
        with (folder / f"model-{number}.safetensors").open("wb") as weights:
            for _ in range(mebibytes // files):
                weights.write(os.urandom(1 << 20))
    (folder / "config.json").write_text(f'{{"name": "{folder.name}"}}\n')
    return folder


def _model(registry: NodeRegistry, reference: str, folder: Path) -> Model:
    files = packing.model_files(folder)
    return Model(registry.seen_inside(reference), packing.checksums(folder), sum(path.stat().st_size for path in files.values()))
