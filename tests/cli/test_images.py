from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.cli import images, tables
from csi_model.store.store import Store
from tests.fakes.models import push_artifact

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Person
    from tests.fakes.registry import FakeRegistry

SHARED = {"weights": b"w" * 50_000}


def pull_two(person: Person, registry: FakeRegistry) -> tuple[str, str]:
    """Two models that share their weights."""
    references = push_artifact(registry, "llm/a", {**SHARED, "a": b"a" * 10}), push_artifact(registry, "llm/b", SHARED)
    for reference in references:
        assert person.run("pull", reference, "--plain-http").exit_code == 0
    return references


def test_images_lists_what_is_here(person: Person, registry: FakeRegistry) -> None:
    """Each reference with what it weighs alone and together with others; never mounted says so."""
    a, b = pull_two(person, registry)
    listed = person.json("images")
    assert [list(entry) for entry in listed] == [list(images.FIELDS)] * 2
    assert [entry["reference"] for entry in listed] == [a, b]
    assert [entry["shared"] for entry in listed] == [50_000, 50_000]
    assert all(entry["size"] == entry["own"] + entry["shared"] for entry in listed)
    assert listed[0]["own"] > listed[1]["own"]
    assert all((entry["lastUsed"], entry["targets"]) == (None, []) for entry in listed)
    table = person.run("images").stdout.splitlines()
    assert table[0].split() == ["REFERENCE", "DIGEST", "FORMAT", "SIZE", "OWN", "SHARED", "LAST", "USED", "MOUNTED", "AT"]
    assert table[1].startswith(a)
    assert table[1].endswith("never      -")


def test_rm_frees_only_what_nobody_else_needs(person: Person, registry: FakeRegistry) -> None:
    """Shared weights stay with the other model, and go with the last."""
    a, b = pull_two(person, registry)
    with Store.open(person.state, writable=False) as store:
        before = len(list(store.content.digests()))
    assert person.run("rm", a).exit_code == 0
    assert [entry["shared"] for entry in person.json("images")] == [0]
    with Store.open(person.state, writable=False) as store:
        assert len(list(store.content.digests())) < before
    result = person.run("rm", b)
    assert result.stdout.startswith(f"removed {b}, 50.")
    assert person.json("images") == []
    with Store.open(person.state, writable=False) as store:
        assert list(store.content.digests()) == []


def test_rm_of_what_is_not_here(person: Person, registry: FakeRegistry) -> None:
    """Removing an unknown reference is an error that names how to see what is here."""
    pull_two(person, registry)
    result = person.run("rm", "registry.example/other:v1")
    assert result.exit_code == 3
    assert "csi-model images" in result.stderr


def test_no_store_is_no_crash(person: Person) -> None:
    """Before the first pull there is nothing to list, and the error says what makes a store."""
    result = person.run("images")
    assert result.exit_code == 3
    assert "csi-model pull" in result.stderr
    assert not person.state.exists()


def test_beside_an_owner_reading_works_and_writing_names_it(person: Person, registry: FakeRegistry) -> None:
    """While another process owns the state directory, images and inspect read; pull and rm end with 5 and say who it is."""
    a, _ = pull_two(person, registry)
    with Store.open(person.state, writable=True):
        assert len(person.json("images")) == 2
        assert person.json("inspect", a)["source"] == "store"
        for words in (("pull", a, "--plain-http"), ("rm", a)):
            result = person.run(*words)
            assert result.exit_code == 5, words
            assert "owns the state directory" in result.stderr


def test_tables_align_sizes_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes end under one another; references, which may begin with digits, do not."""
    tables.write_table(("NAME", "SIZE"), [("127.0.0.1/a", "1.0 kB"), ("b", "10.0 kB")])
    assert capsys.readouterr().out == "NAME            SIZE\n127.0.0.1/a   1.0 kB\nb            10.0 kB\n"


def test_tables_may_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """Without rows there are the columns' names."""
    tables.write_table(("NAME", "SIZE"), [])
    assert capsys.readouterr().out == "NAME  SIZE\n"
