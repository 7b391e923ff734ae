from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from csi_model.errors import InvalidRequestError
from csi_model.oci.reference import Reference, parse_reference
from csi_model.registry.credentials import Credential, Keyring

if TYPE_CHECKING:
    from pathlib import Path


def ring(*keys: str) -> Keyring:
    """A keyring whose passwords are their keys."""
    auths = {key: {"username": "u", "password": key} for key in keys}
    return Keyring.parse_secret({".dockerconfigjson": json.dumps({"auths": auths})})


def matching(keyring: Keyring, text: str) -> list[str]:
    reference = parse_reference(text)
    assert isinstance(reference, Reference)
    return [credential.password for credential in keyring.matching(reference)]


@pytest.mark.parametrize(
    ("key", "reference", "expected"),
    [
        ("registry.example", "registry.example/a", True),
        ("https://registry.example", "registry.example/a", True),
        ("http://registry.example/v2/", "registry.example/a", True),
        ("https://registry.example/v1/", "registry.example/a", True),
        ("registry.example/v1beta", "registry.example/a", False),
        ("registry.example/foo", "registry.example/foo/bar", True),
        ("registry.example/foo", "registry.example/foobar", True),
        ("registry.example/foo", "registry.example/bar", False),
        ("registry.example/v2/foo", "registry.example/foo", True),
        ("registry.example:5000", "registry.example:5000/a", True),
        ("registry.example", "registry.example:5000/a", False),
        ("registry.example:5000", "registry.example/a", False),
        ("*.example", "registry.example/a", True),
        ("*.example", "a.registry.example/a", False),
        ("*.*.example", "a.registry.example/a", True),
        ("reg*.example", "registry.example/a", True),
        ("*.io", "docker.io/library/a", True),
        ("docker.io", "a", True),
        ("https://index.docker.io/v1/", "a", True),
        ("index.docker.io", "registry.example/a", False),
        ("[::1]:5000", "[::1]:5000/a", True),
        ("[::1]", "[::1]/a", True),
        ("[::1]", "[::1]:5000/a", False),
        ("https://[FD00::1]:5000/v2/team", "[fd00::1]:5000/team/a", True),
        ("regist[a-z]y.example", "registry.example/a", True),
        ("[a-z]*.example", "registry.example/a", True),
        ("[a-z]*.example:5000", "registry.example:5000/a", True),
        ("[a-q]*.example", "registry.example/a", False),
        ("[^a-q]*.example", "registry.example/a", True),
        ("[^r]*.example", "registry.example/a", False),
        ("[!a]*.example", "registry.example/a", False),
        ("registry.example:", "registry.example/a", True),
        ("user@registry.example", "registry.example/a", True),
        ("registry.example?query", "registry.example/a", True),
        ("registry.example:70000", "registry.example/a", False),
    ],
)
def test_matching_follows_kubelet(key: str, reference: str, *, expected: bool) -> None:
    """Ports are equal, labels are globbed one by one, paths are string prefixes, and Docker Hub has its old key."""
    assert matching(ring(key), reference) == ([key] if expected else [])


@pytest.mark.parametrize(
    "key", ["other.example:port", "http://[::1", "::1", "a:1:2", "https://", "", "two words", "https://me:canary@a:b?canary"]
)
def test_keys_that_name_no_registry_are_left_out(key: str) -> None:
    """One entry that nothing can match takes no other entry with it; the log names its key, without what may be a secret."""
    with capture_logs() as logs:
        keyring = ring(key, "registry.example")
    assert matching(keyring, "registry.example/a") == ["registry.example"]
    assert len(keyring.entries) == 1
    assert [(line["log_level"], line["where"]) for line in logs] == [("warning", ".dockerconfigjson of the volume's secret")]
    assert str(logs[0]["key"]) in key
    assert "canary" not in str(logs)


def test_most_specific_first() -> None:
    """Keys are tried in reverse order of their text, so that longer paths come first, and globs last."""
    keyring = ring("*.example", "registry.example", "registry.example/team/secret", "registry.example/team")
    assert matching(keyring, "registry.example/team/secret/x") == [
        "registry.example/team/secret",
        "registry.example/team",
        "registry.example",
        "*.example",
    ]


def test_old_hub_key_is_a_last_resort() -> None:
    """index.docker.io is used only when nothing else matches."""
    assert matching(ring("https://index.docker.io/v1/", "docker.io"), "a") == ["docker.io"]


@pytest.mark.parametrize("padding", ["", "keep"])
def test_auth_outranks_username(padding: str) -> None:
    """An auth is base64 with or without padding, split at the first colon, and wins over username and password."""
    auth = base64.b64encode(b"me:pass:word").decode()
    entry = {"auth": auth if padding else auth.rstrip("="), "username": "x", "password": "y"}
    keyring = Keyring.parse_secret({".dockercfg": json.dumps({"registry.example": entry})})
    reference = parse_reference("registry.example/a")
    assert isinstance(reference, Reference)
    assert keyring.matching(reference) == (Credential("me", "pass:word"),)


def test_identity_tokens_are_ignored_in_secrets() -> None:
    """Kubelet does not use them, and neither do we."""
    keyring = Keyring.parse_secret({".dockerconfigjson": json.dumps({"auths": {"registry.example": {"identitytoken": "t"}}})})
    assert keyring.entries == ()


def test_what_kubernetes_adds_is_ignored() -> None:
    """Service account tokens that arrive beside, or instead of, a pull secret are not mistaken for one."""
    assert Keyring.parse_secret({"csi.storage.k8s.io/serviceAccount.tokens": "{}"}) == Keyring()
    assert Keyring.parse_secret({}) == Keyring()


@pytest.mark.parametrize(
    "data",
    [
        {"password": "canary"},
        {".dockerconfigjson": "canary"},
        {".dockerconfigjson": '{"auths": ["canary"]}'},
        {".dockerconfigjson": '{"auths": {"a": "canary"}}'},
        {".dockerconfigjson": '{"auths": {"a": {"auth": "canary"}}}'},
        {".dockerconfigjson": '{"auths": {"a": {"username": "u", "password": ["canary"]}}}'},
        {".dockerconfigjson": '{"canary": 1, "canary": 2}'},
        {".dockerconfigjson": "{}", ".dockercfg": "canary"},
    ],
)
def test_broken_secrets_are_refused_without_being_quoted(data: dict[str, str]) -> None:
    """One broken part refuses the whole secret, and no word of it gets into the message or its causes."""
    with pytest.raises(InvalidRequestError) as caught:
        Keyring.parse_secret(data)
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value.__cause__)


def test_config_file(tmp_path: Path) -> None:
    """A Docker config file's auths are read, with identity tokens; its helpers are not."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {"registry.example": {"identitytoken": "t"}}, "credsStore": "desktop"}))
    reference = parse_reference("registry.example/a")
    assert isinstance(reference, Reference)
    assert Keyring.load(path).matching(reference) == (Credential("", "", "t"),)
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        Keyring.load(tmp_path / "absent")


def test_secrets_are_not_shown() -> None:
    """Neither repr nor label of a credential, nor repr of a keyring, shows a password or token."""
    credential = Credential("me", "canary-1", "canary-2")
    shown = f"{credential!r} {credential} {credential.label} {ring('canary.example')!r}"
    assert "canary-" not in shown
    assert "password='" not in shown
    assert "'me'" in credential.label
