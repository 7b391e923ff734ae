from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.cli import pull
from csi_model.oci.digest import Digest
from csi_model.store.store import Store
from tests.fakes.models import push_artifact
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from tests.cli.conftest import Person
    from tests.fakes.registry import FakeRegistry

FILES = {"config.json": b"{}", "weights.safetensors": b"w" * 100_000}
MIB = 1 << 20


def test_a_pull_says_what_it_fetched(person: Person, registry: FakeRegistry) -> None:
    """The result is on standard output: what came, and the digest on a line of its own."""
    reference = push_artifact(registry, "llm/tiny", FILES)
    result = person.run("pull", reference, "--plain-http")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{reference}: 100 kB of 100 kB fetched in ")
    assert Digest.parse(second) == Digest.of(registry.manifests["llm/tiny", "v1"][1])


def test_a_second_pull_fetches_nothing(person: Person, registry: FakeRegistry) -> None:
    """What is here is not fetched again, and the person is told so."""
    reference = push_artifact(registry, "llm/tiny", FILES)
    person.run("pull", reference, "--plain-http")
    before = registry.body_bytes
    result = person.run("pull", reference, "--plain-http")
    assert "all of it here already" in result.stdout
    assert registry.body_bytes - before < 2000


def test_a_pull_asks_what_the_tag_names_now(person: Person, registry: FakeRegistry) -> None:
    """A tag that moved is followed, although the old model is here."""
    old = person.json("pull", push_artifact(registry, "llm/tiny", FILES), "--plain-http")
    new = person.json("pull", push_artifact(registry, "llm/tiny", {"config.json": b"[]"}), "--plain-http")
    assert old["manifest"] != new["manifest"]


def test_json_has_the_documented_fields(person: Person, registry: FakeRegistry) -> None:
    """For machines there is one object with the fields of docs/cli.md, and nothing on standard error."""
    result = person.run("pull", push_artifact(registry, "llm/tiny", FILES), "--plain-http", "--json")
    assert result.stderr == ""
    told = person.json("pull", push_artifact(registry, "llm/tiny", FILES), "--plain-http")
    assert list(told) == list(pull.FIELDS)
    assert (told["format"], told["size"], told["fetched"]) == ("ORAS artifact", 100_002, 0)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pull_is_resumed(person: Person, registry: FakeRegistry, kind: signal.Signals) -> None:
    """Ctrl-C or SIGTERM in mid-pull ends it soon with code 130 and a word of comfort; the next pull fetches only the rest."""
    reference = push_artifact(registry, "llm/large", {"weights": bytes(range(256)) * (48 * MIB // 256)})
    slow = Fault(where="/blobs/", drip=(MIB // 2, 0.05))
    registry.faults.append(slow)
    process = person.start("pull", reference, "--plain-http")
    ingest = person.state / "ingest"
    end = time.monotonic() + 60
    while sum(file.stat().st_size for file in ingest.glob("*/*")) < 16 * MIB:
        assert time.monotonic() < end, "nothing arrives"
        time.sleep(0.02)
    assert process.poll() is None, "the pull has ended too soon to be interrupted"
    process.send_signal(kind)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, ""), errors
    assert f"stopped; what is here of {reference} is kept, and the next pull goes on with it" in errors
    assert "Traceback" not in errors
    registry.faults.remove(slow)
    told = person.json("pull", reference, "--plain-http")
    assert 0 < told["fetched"] <= 36 * MIB


def test_a_pull_without_root_goes_to_any_directory(person: Person, registry: FakeRegistry) -> None:
    """The state directory of the command line is anybody's: what was pulled is in it."""
    told = person.json("pull", push_artifact(registry, "llm/tiny", FILES), "--plain-http", "--state-dir", str(person.folder / "mine"))
    with Store.open(person.folder / "mine", writable=False) as store:
        assert [str(model.manifest) for model in store.state.models()] == [told["manifest"]]


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (Fault(where="/manifests/", status=403), 4, "403"),
        (Fault(where="/blobs/", body=b"not what was promised"), 7, "error: "),
        (Fault(where="/manifests/", status=404), 3, "does not exist"),
    ],
)
def test_failures_are_one_line_and_a_code(person: Person, registry: FakeRegistry, fault: Fault, code: int, says: str) -> None:
    """What a registry does wrong ends in its exit code and one line on standard error, and never in a traceback."""
    reference = push_artifact(registry, "llm/tiny", FILES)
    registry.faults.append(fault)
    result = person.run("pull", reference, "--plain-http")
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert result.stdout == ""


def test_a_malformed_reference_costs_nothing(person: Person) -> None:
    """What is wrong with the command line is said before a state directory is made."""
    result = person.run("pull", "http://registry.example/x")
    assert result.exit_code == 2
    assert "is not a reference" in result.stderr
    assert not person.state.exists()
