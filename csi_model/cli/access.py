"""How a command reaches registries: its configuration, the credentials of the person who runs it, and advice when that fails."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.config.model import Config, RegistryHost
from csi_model.errors import CsiModelError, InvalidRequestError, RegistryDeniedError, UnauthenticatedError, UnavailableError
from csi_model.oci.document import parse_json
from csi_model.oci.reference import Reference, parse_reference
from csi_model.registry.origin import Origin, is_loopback
from csi_model.registry.settings import HttpSettings, api_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.oci.reference import AnyReference


@dataclass(frozen=True, slots=True)
class Access:
    """A reference, and the configuration with which it is reached: the person's credentials stand in it as its host's."""

    reference: AnyReference
    config: Config
    loopback_plain_http: bool

    @classmethod
    def prepare(cls, text: str, *, config_file: Path | None, plain_http: bool, credentials_file: Path | None) -> Access:
        """Read what the command line names.

        Credentials are those of ``credentials_file``; or of the configuration, for a host that has some there; or of Docker's own
        file (``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``), where it exists.

        Raises:
            InvalidRequestError: the reference or the configuration is malformed, or plain HTTP is asked for a host elsewhere.
        """
        reference = parse_reference(text)
        config = load_config(config_file)
        if isinstance(reference, Reference):
            config = _with_credentials(config, reference, credentials_file)
            if plain_http:
                _demand_loopback(reference, config)
        return cls(reference, config, plain_http)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Add to errors of the body what this person could do about them."""
        try:
            yield
        except (UnauthenticatedError, RegistryDeniedError, UnavailableError) as error:
            advice = self._advice(error)
            if advice is None:
                raise
            msg = f"{error}; {advice}"
            raise type(error)(msg) from error

    def _advice(self, error: CsiModelError) -> str | None:
        if not isinstance(self.reference, Reference):
            return None
        if isinstance(error, UnavailableError):
            local = is_loopback(Origin.of_registry(self.reference.host, HttpSettings()).host)
            return "for a registry on this machine without TLS, add --plain-http" if local and "speak TLS" in str(error) else None
        _, host = _host_settings(self.config, self.reference)
        if host.credentials_file is not None and _names_helpers(host.credentials_file):
            return f"{host.credentials_file} keeps its passwords with a credential helper, which csi-model does not run; try --credentials-file"
        if host.credentials_file is None:
            return "`docker login` writes credentials where they are found, and --credentials-file names a file of them"
        return None


def load_config(path: Path | None) -> Config:
    """The configuration file, or every default.

    Raises:
        InvalidRequestError: it cannot be read, or is none.
    """
    if path is None:
        return Config()
    from csi_model.config.load import load

    return load(path)


def docker_config() -> Path | None:
    """Docker's file of credentials, where this person has one."""
    folder = os.environ.get("DOCKER_CONFIG")
    path = Path(folder) / "config.json" if folder else Path("~/.docker/config.json").expanduser()
    return path if path.is_file() else None


def _with_credentials(config: Config, reference: Reference, explicit: Path | None) -> Config:
    name, host = _host_settings(config, reference)
    path = explicit or host.credentials_file or docker_config()
    return config.model_copy(update={"registries": {**config.registries, name: host.model_copy(update={"credentials_file": path})}})


def _host_settings(config: Config, reference: Reference) -> tuple[str, RegistryHost]:
    """The reference's host as the configuration names it, and its settings."""
    for name, host in config.registries.items():
        if api_host(name) == reference.host.lower():
            return name, host
    return reference.registry, RegistryHost()


def _demand_loopback(reference: Reference, config: Config) -> None:
    if not Origin.of_registry(reference.host, HttpSettings.of(config, loopback_plain_http=True)).is_plain:
        msg = (
            f"--plain-http is for registries on this machine, and {reference.registry} is none; "
            f"to reach it without TLS all the same, set registries.{reference.registry}.plainHttp: true in a file and name it with --config"
        )
        raise InvalidRequestError(msg)


def _names_helpers(path: Path) -> bool:
    try:
        return bool({"credsStore", "credHelpers"} & parse_json(path.read_bytes(), str(path)).keys())
    except (OSError, CsiModelError):
        return False
