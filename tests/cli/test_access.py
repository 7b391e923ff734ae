from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from csi_model.cli.access import Access
from csi_model.errors import DeniedError, InvalidRequestError
from tests.fakes.models import push_artifact
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Person

PASSWORD = "correct horse battery"


@pytest.fixture
def private() -> Iterator[FakeRegistry]:
    with FakeRegistry(auth=BasicAuth({"ann": PASSWORD})) as fake:
        yield fake


def login(path: Path, host: str, password: str = PASSWORD) -> Path:
    """What `docker login` writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(f"ann:{password}".encode()).decode()}}}))
    return path


def prepare(text: str, **more: Path | None) -> Access:
    return Access.prepare(text, config_file=more.get("config"), plain_http=False, credentials_file=more.get("credentials"))


def test_docker_login_is_enough(person: Person, private: FakeRegistry) -> None:
    """Credentials are found where `docker login` leaves them, in DOCKER_CONFIG or at home."""
    reference = push_artifact(private, "llm/tiny", {"a": b"a"})
    login(person.folder / "home" / ".docker" / "config.json", private.host)
    assert person.run("inspect", reference, "--plain-http").exit_code == 0
    login(person.folder / "other" / "config.json", private.host, "wrong")
    person.environment["DOCKER_CONFIG"] = str(person.folder / "other")
    assert person.run("inspect", reference, "--plain-http").exit_code == 4


def test_a_named_file_wins(person: Person, private: FakeRegistry) -> None:
    """--credentials-file stands in for everything else."""
    reference = push_artifact(private, "llm/tiny", {"a": b"a"})
    login(person.folder / "home" / ".docker" / "config.json", private.host, "wrong")
    mine = login(person.folder / "mine.json", private.host)
    assert person.run("pull", reference, "--plain-http", "--credentials-file", str(mine)).exit_code == 0


def test_the_configuration_wins_over_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with credentials in the configuration gets those; another gets Docker's."""
    docker = login(tmp_path / "docker" / "config.json", "r.example")
    monkeypatch.setenv("DOCKER_CONFIG", str(docker.parent))
    config = tmp_path / "config.yaml"
    config.write_text("registries: {r.example: {credentialsFile: /etc/theirs.json}, docker.io: {caFile: /etc/ca.pem}}")
    files = {
        name: prepare(text, config=config).config.registries[name].credentials_file
        for name, text in (
            ("r.example", "r.example/a:v1"),
            ("other.example", "other.example/a:v1"),
            ("docker.io", "index.docker.io/a/b:v1"),
        )
    }
    assert files == {"r.example": (tmp_path / "/etc/theirs.json"), "other.example": docker, "docker.io": docker}


def test_a_refusal_says_how_to_log_in(person: Person, private: FakeRegistry) -> None:
    """Without credentials the next step is named; and so it is where a helper, which is not run, keeps them. No secret is shown."""
    reference = push_artifact(private, "llm/tiny", {"a": b"a"})
    assert "docker login" in person.run("pull", reference, "--plain-http").stderr
    helper = person.folder / "home" / ".docker" / "config.json"
    helper.parent.mkdir(parents=True)
    helper.write_text(json.dumps({"credsStore": "desktop", "auths": {private.host: {}}}))
    refused = person.run("pull", reference, "--plain-http").stderr
    assert "credential helper" in refused
    assert "--credentials-file" in refused
    login(helper, private.host, "wrong secret")
    verbose = person.run("--verbose", "pull", reference, "--plain-http")
    assert verbose.exit_code == 4
    assert "wrong secret" not in verbose.output
    assert base64.b64encode(b"ann:wrong secret").decode() not in verbose.output


def test_what_we_forbid_ourselves_is_no_matter_of_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect that is not followed says so, and sends nobody to `docker login`."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    said = "registry.example sent a redirect that leaves TLS (http://storage.example); refused"
    with pytest.raises(DeniedError) as caught, prepare("registry.example/a:v1").explained():
        raise DeniedError(said)
    assert str(caught.value) == said


def test_plain_http_on_request_is_for_this_machine(person: Person) -> None:
    """--plain-http for another host is refused, naming the key that allows it."""
    result = person.run("pull", "registry.example:5000/llm/tiny:v1", "--plain-http")
    assert result.exit_code == 2
    assert "registries.registry.example:5000.plainHttp: true" in result.stderr


def test_plain_http_for_a_configured_host_is_no_contradiction(tmp_path: Path) -> None:
    """Where the configuration allows plain HTTP already, asking for it again is fine."""
    config = tmp_path / "config.yaml"
    config.write_text("registries: {registry.example: {plainHttp: true}}")
    Access.prepare("registry.example/a:v1", config_file=config, plain_http=True, credentials_file=None)
    with pytest.raises(InvalidRequestError):
        Access.prepare("other.example/a:v1", config_file=config, plain_http=True, credentials_file=None)


def test_the_environment_may_name_the_configuration(person: Person, tmp_path: Path) -> None:
    """CSI_MODEL_CONFIG stands for --config, so that a shell in the driver's pod sees what the driver was told; a wrong file is an error."""
    config = tmp_path / "config.yaml"
    with FakeRegistry() as registry:
        reference = push_artifact(registry, "llm/tiny", {"a": b"a"})
        config.write_text(f"registries: {{'{registry.host}': {{plainHttp: true}}}}")
        person.environment["CSI_MODEL_CONFIG"] = str(config)
        assert person.run("inspect", reference).exit_code == 0
    config.write_text("registriez: {}")
    assert "registriez" in person.run("inspect", reference).stderr


def test_a_local_registry_without_tls_gets_a_hint(person: Person, tmp_path: Path) -> None:
    """Who forgot --plain-http for a registry on this machine is told."""
    with FakeRegistry() as registry:
        result = person.run("inspect", push_artifact(registry, "llm/tiny", {"a": b"a"}))
    assert result.exit_code == 6
    assert "add --plain-http" in result.stderr


def test_a_redirect_without_tls_is_nothing_about_credentials(person: Person, tmp_path: Path) -> None:
    """Who is sent to a plain host that the configuration does not name is told the key, and not to log in."""
    config = tmp_path / "config.yaml"
    with FakeRegistry() as storage, FakeRegistry() as registry:
        reference = push_artifact(registry, "llm/tiny", {"a": b"a"})
        registry.add_fault(Fault(where="/manifests/", redirect=storage.url + "{path}"))
        config.write_text(f"registries: {{'{registry.host}': {{plainHttp: true}}}}")
        result = person.run("inspect", reference, "--config", str(config))
    assert f"set registries.{storage.host}.plainHttp: true" in result.stderr
    assert "docker login" not in result.stderr


def test_a_layout_needs_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference to an OCI layout leaves the configuration as it is."""
    monkeypatch.setenv("DOCKER_CONFIG", str(login(tmp_path / "config.json", "r.example").parent))
    assert prepare(f"oci-layout://{tmp_path}/x:v1").config.registries == {}
