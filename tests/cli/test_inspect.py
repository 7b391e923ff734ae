from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from csi_model.cli import inspect
from tests.fakes.models import push_artifact, push_manifest, push_tars, tar_of

if TYPE_CHECKING:
    from tests.cli.conftest import Person
    from tests.fakes.registry import FakeRegistry

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def test_raw_layers_say_where_they_land(person: Person, registry: FakeRegistry) -> None:
    """An artifact's files are listed by their paths and sizes, and no layer is read for it."""
    reference = push_artifact(registry, "llm/tiny", {"config.json": b"{ }", "onnx/model.onnx": b"m" * 5000})
    told = person.json("inspect", reference, "--plain-http")
    assert list(told) == list(inspect.FIELDS)
    assert all(list(layer) == list(inspect.LAYER_FIELDS) for layer in told["layers"])
    assert (told["format"], told["size"], told["source"]) == ("ORAS artifact", 5003, "registry")
    assert [(layer["path"], layer["size"], layer["kind"], layer["here"]) for layer in told["layers"]] == [
        ("/config.json", 3, "file", False),
        ("/onnx/model.onnx", 5000, "file", False),
    ]
    layers = {layer["digest"] for layer in told["layers"]}
    assert not [seen for seen in registry.seen if seen.path.rpartition("/")[2] in layers]
    assert not person.state.exists()


def test_archives_say_how_they_are_packed(person: Person, registry: FakeRegistry) -> None:
    """An image's layers are archives that are merged into the root."""
    tar = tar_of({"models/a": b"a"})
    packed = gzip.compress(tar)
    reference = push_tars(registry, "llm/car", packed, media_type=GZIP, diff_ids=(tar,))
    (layer,) = person.json("inspect", reference, "--plain-http")["layers"]
    assert (layer["kind"], layer["compression"], layer["path"], layer["mediaType"]) == ("tar", "gzip", "/", GZIP)


def test_what_is_here_is_read_here(person: Person, registry: FakeRegistry) -> None:
    """After a pull the registry is not asked again, and the layers are said to be here."""
    reference = push_artifact(registry, "llm/tiny", {"config.json": b"{}"})
    person.run("pull", reference, "--plain-http")
    asked = len(registry.seen)
    told = person.json("inspect", reference)
    assert len(registry.seen) == asked
    assert told["source"] == "store"
    assert [layer["here"] for layer in told["layers"]] == [True]
    digest = f"{reference.rpartition(':')[0]}@{told['manifest']}"
    assert person.json("inspect", digest)["source"] == "store"


def test_people_get_a_table(person: Person, registry: FakeRegistry) -> None:
    """Without --json there is a summary and a line for each layer."""
    reference = push_artifact(registry, "llm/tiny", {"config.json": b"{}", "w": b"w" * 1500})
    lines = person.run("inspect", reference, "--plain-http").stdout.splitlines()
    assert lines[0] == f"reference  {reference}"
    assert lines[3] == "size       1.5 kB in 2 layers"
    assert lines[-1].split()[1:] == ["1.5", "kB", "file", "no", "/w"]


def test_what_is_no_model_is_refused_by_name(person: Person, registry: FakeRegistry) -> None:
    """A Helm chart is called one, with the exit code for what is not supported."""
    config = registry.add_blob(b"{}", "application/vnd.cncf.helm.config.v1+json")
    described = {"mediaType": config.media_type, "digest": str(config.digest), "size": config.size}
    reference = push_manifest(registry, "charts/x", {"config": described, "layers": []})
    result = person.run("inspect", reference, "--plain-http")
    assert result.exit_code == 9
    assert "Helm" in result.stderr
