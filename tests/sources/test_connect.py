from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Config
from csi_model.errors import MisconfiguredError, UnauthenticatedError, UnavailableError
from csi_model.oci.reference import parse_reference
from csi_model.registry.credentials import Credential
from csi_model.registry.settings import HttpSettings
from csi_model.sources.connect import Connector
from csi_model.sources.layout import LayoutSource
from tests.fakes.registry import BasicAuth, FakeRegistry

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"{}"


@pytest.mark.parametrize(
    ("given", "accepted"),
    [((), True), ((Credential("wrong", "w"),), False), ((Credential("volume", "v"),), True)],
    ids=["node", "wrong", "volume"],
)
def test_configured_credentials_are_for_volumes_without(tmp_path: Path, given: tuple[Credential, ...], *, accepted: bool) -> None:
    """A host's credentials file is used when the volume brings none, and never instead of those that it brought."""
    with FakeRegistry(auth=BasicAuth({"node": "n", "volume": "v"})) as registry:
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"auths": {registry.host: {"username": "node", "password": "n"}}}))
        config = Config.model_validate({"registries": {registry.host: {"plainHttp": True, "credentialsFile": str(file)}}})
        descriptor = registry.add_manifest("llm/tiny", BODY, tag="v1")
        reference = parse_reference(f"{registry.host}/llm/tiny:v1")
        connector = Connector(config)
        source = connector.connect(reference, given)
        if accepted:
            assert source.resolve(reference) == descriptor
            assert source.authenticated
        else:
            with pytest.raises(UnauthenticatedError, match="'wrong'"):
                source.resolve(reference)
        connector.close()


@pytest.mark.parametrize("text", [None, "{", '{"auths": []}'])
def test_a_configured_file_that_is_unusable_is_no_fault_of_the_volume(tmp_path: Path, text: str | None) -> None:
    """The admin's file is named as what is wrong, whether it is absent or malformed."""
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    config = Config.model_validate({"registries": {"registry.example": {"credentialsFile": str(file)}}})
    with pytest.raises(MisconfiguredError, match=r"config\.json"):
        Connector(config).connect(parse_reference("registry.example/llm/tiny:v1"))


def test_sources_share_connections() -> None:
    """Two volumes of one registry use one kept connection, though not each other's credentials."""
    with FakeRegistry(auth=BasicAuth({"me": "pw"})) as registry:
        registry.add_manifest("llm/tiny", BODY, tag="v1")
        reference = parse_reference(f"{registry.host}/llm/tiny:v1")
        connector = Connector(Config(), loopback_plain_http=True)
        connector.connect(reference, (Credential("me", "pw"),)).resolve(reference)
        with pytest.raises(UnauthenticatedError, match="none"):
            connector.connect(reference).resolve(reference)
        connector.close()
        assert registry.connections == 1


def test_loopback_is_tls_unless_somebody_asked() -> None:
    """Without configuration and without being asked, loopback is spoken to over TLS like any other host."""
    with FakeRegistry() as registry:
        reference = parse_reference(f"{registry.host}/llm/tiny:v1")
        connector = Connector(Config())
        with pytest.raises(UnavailableError, match="plainHttp"):
            connector.connect(reference).resolve(reference)
        connector.close()


def test_layouts(tmp_path: Path) -> None:
    """A layout reference gives a layout source, named as it was asked for."""
    source = Connector(Config()).connect(parse_reference(f"oci-layout://{tmp_path}:v1"))
    assert isinstance(source, LayoutSource)
    assert source.name == f"oci-layout://{tmp_path}"


def test_settings_of_a_configuration(tmp_path: Path) -> None:
    """The file's hosts and time limits arrive; Docker Hub's names mean its API host."""
    config = Config.model_validate(
        {
            "registries": {"docker.io": {"caFile": str(tmp_path)}, "A.example:5000": {"plainHttp": True}},
            "pull": {"stallTimeout": "5s", "retries": 1},
        }
    )
    settings = HttpSettings.of(config)
    assert settings.ca_files == {"registry-1.docker.io": tmp_path}
    assert settings.plain_http == {"a.example:5000"}
    assert (settings.stall_timeout, settings.retries, settings.loopback_plain_http) == (5, 1, False)
