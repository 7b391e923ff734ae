"""How registries are talked to: time limits, retries, and which hosts may be spoken to without TLS."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from csi_model.config.model import Config


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Times are seconds. Hosts are named as in references, with their port where they have one."""

    plain_http: frozenset[str] = frozenset()
    loopback_plain_http: bool = False
    """Plain HTTP for loopback addresses too: only for a person on the command line who asked."""
    ca_files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    retries: int = 5
    """Attempts after the first for a request that made no progress: 1 MiB in one attempt, or its end."""
    backoff: float = 0.5
    """The first pause; it doubles up to ``backoff_limit``, and a random part of up to half is taken off."""
    backoff_limit: float = 30.0
    retry_after_limit: float = 60.0
    """The longest pause that a registry is given when it asks for one; a longer one ends the operation."""

    @classmethod
    def of(cls, config: Config, *, loopback_plain_http: bool = False) -> Self:
        """What the configuration file says."""
        hosts = {api_host(name): host for name, host in config.registries.items()}
        return cls(
            plain_http=frozenset(name for name, host in hosts.items() if host.plain_http),
            loopback_plain_http=loopback_plain_http,
            ca_files=MappingProxyType({name: host.ca_file for name, host in hosts.items() if host.ca_file}),
            connect_timeout=config.pull.connect_timeout,
            stall_timeout=config.pull.stall_timeout,
            retries=config.pull.retries,
        )


def api_host(name: str) -> str:
    """Where the registry ``name`` is reached: Docker Hub's API is on another host than its name says."""
    return "registry-1.docker.io" if name.lower() in {"docker.io", "index.docker.io"} else name.lower()
