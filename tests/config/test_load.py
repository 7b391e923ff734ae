"""The configuration file: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_model.config.load import load, parse
from csi_model.config.model import Config
from csi_model.errors import InvalidRequestError


def _refusal(text: str) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        parse(text, where="test.yaml")
    return str(refused.value)


def test_an_empty_file_means_all_defaults() -> None:
    """Nothing, and nothing but comments, configure nothing."""
    assert parse("", where="x") == parse("# later\n", where="x") == Config()


def test_values_are_read_with_their_units() -> None:
    """Durations and sizes take a unit, and plain numbers are seconds and bytes."""
    config = parse("pull: {linger: 2h, stallTimeout: 500ms, connectTimeout: 7, freeSpaceReserve: 1.5GiB}", where="x")
    assert (config.pull.linger, config.pull.stall_timeout, config.pull.connect_timeout) == (7200, 0.5, 7)
    assert config.pull.free_space_reserve == 3 << 29


def test_registries_are_keyed_by_host_and_port() -> None:
    """A host with its port is one key, though it has dots and a colon."""
    config = parse('registries: {"127.0.0.1:5000": {plainHttp: true}, "[::1]:5000": {caFile: /ca.pem}, "r:65535": {}}', where="x")
    assert config.registries["127.0.0.1:5000"].plain_http
    assert config.registries["[::1]:5000"].ca_file == Path("/ca.pem")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logLvl: info", "logLvl: unknown key; did you mean logLevel?"),
        ("pull: {activeBlob: 3}", "pull.activeBlob: unknown key; did you mean activeBlobs?"),
        ("pull: {active_blobs: 3}", "pull.active_blobs: unknown key; did you mean activeBlobs?"),
        ("registries: {r.example: {plainhttp: true}}", "registries.r.example.plainhttp: unknown key; did you mean plainHttp?"),
        ("zebra: 1", "zebra: unknown key"),
        ("pull: {linger: 10 parsecs}", "pull.linger: expected a duration such as 90s, 10m or 2h, not '10 parsecs'"),
        ("pull: {linger: yes}", "pull.linger: expected a duration"),
        ("pull: {linger: .inf}", "pull.linger: Input should be a finite number"),
        ("pull: {linger: -1}", "pull.linger: Input should be greater than 0"),
        ("pull: {freeSpaceReserve: 10Gb}", "pull.freeSpaceReserve: expected a size"),
        ("pull: {activeBlobs: yes}", "pull.activeBlobs: Input should be a valid integer"),
        ("pull: {activeBlobs: 65}", "pull.activeBlobs: Input should be less than or equal to 64"),
        ("registries: {'http://r.example': {}}", "expected a registry's host"),
        *((f"registries: {{'r.example:{port}': {{}}}}", "a port up to 65535") for port in (0, 65536, 99999, 123456, "abc", "\uff15")),
        ("layouts: {allowedPrefixes: [/srv/models]}", "layouts.allowedPrefixes.0: expected a prefix"),
        ("layouts: {allowedPrefixes: ['oci-layout:///srv/../etc']}", "layouts.allowedPrefixes.0: expected a prefix"),
        ("layouts: {allowedPrefixes: ['oci-layout+zip://a::file:///b']}", "layouts.allowedPrefixes.0: expected a prefix"),
        ("csi: {driverName: 7up}", "csi.driverName: String should match pattern"),
        ("csi: {driverName: My.Driver}", "csi.driverName: String should match pattern"),
        ("- a list", "(the whole file): Input should be a valid dictionary"),
        ("pull: {", "test.yaml is not valid YAML"),
        ("pull: {decoders: 1}\npull: {buffers: 4}", "the key 'pull' is written twice"),
        ("pull: {decoders: 1, decoders: 2}", "the key 'decoders' is written twice"),
        ("? [a, b]\n: 1", "a key must be a plain word"),
        ("logLevel: !!python/object/apply:os.getcwd []", "test.yaml is not valid YAML"),
        ("a: " + "[" * 5000, "test.yaml is not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_path_of_what_is_wrong(text: str, said: str) -> None:
    """Every refusal names the key by its path and says what would be right."""
    assert said in _refusal(text)


def test_every_problem_is_listed_at_once() -> None:
    """A person mends a file in one go, not problem by problem."""
    message = _refusal("zebra: 1\npull: {activeBlobs: 0, lingr: 3}")
    assert all(said in message for said in ("zebra: unknown", "pull.activeBlobs: ", "pull.lingr: unknown key; did you mean linger?"))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """No file, a directory, and a file that is far too large each end in our error."""
    with pytest.raises(InvalidRequestError, match=r"cannot read the configuration .*No such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(InvalidRequestError, match=r"cannot read the configuration .*Is a directory"):
        load(tmp_path)
    (tmp_path / "large.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InvalidRequestError, match="larger than 1 MiB"):
        load(tmp_path / "large.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InvalidRequestError, match="not valid YAML"):
        load(tmp_path / "binary.yaml")


def test_a_file_is_loaded(tmp_path: Path) -> None:
    """What the file says is what the model holds."""
    path = tmp_path / "config.yaml"
    path.write_text("logLevel: debug\nviews: {strategy: erofs-loop}\n")
    config = load(path)
    assert (config.log_level, config.views.strategy) == ("debug", "erofs-loop")
