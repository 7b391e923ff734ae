"""The configuration file's model: every key, its default, and what it means.

The file is YAML with camelCase keys; unknown keys are refused by their path. docs/configuration.md is generated from this module.
"""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "ms": 0.001}
_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
REGISTRY_NAME = rf"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::{_PORT})?"
_HOST = re.compile(REGISTRY_NAME)
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def _seconds(value: object) -> object:
    return _scaled(value, _SECONDS, "a duration such as 90s, 10m or 2h")


def _bytes(value: object) -> object:
    scaled = _scaled(value, _BYTES, "a size such as 64MiB or 2GiB")
    return int(scaled) if isinstance(scaled, float) else scaled


def _scaled(value: object, units: dict[str, int] | dict[str, float], expected: str) -> object:
    if isinstance(value, bool):
        # YAML's yes and no would pass for 1 and 0.
        msg = f"expected {expected}, not {value}"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns a ValueError into a message with the key's path
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value)
    if not match or match[2] not in units:
        msg = f"expected {expected}, not {value!r}"
        raise ValueError(msg)
    return float(match[1]) * units[match[2]]


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        msg = "expected a registry's host as references name it, such as registry.example or 127.0.0.1:5000, without http:// and path, and a port up to 65535"
        raise ValueError(msg)
    return value


def _layout_prefix(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator or not (scheme == "oci-layout" or scheme.startswith("oci-layout+")) or "::" in value or ".." in rest.split("/"):
        msg = "expected a prefix such as oci-layout:///srv/models/ or oci-layout+s3://bucket/models/, without '..' and '::'"
        raise ValueError(msg)
    return value


class Unit(enum.Enum):
    """What a number counts; the documentation shows its default so."""

    SECONDS = "duration"
    BYTES = "size"


# The schemas that `WithJsonSchema` gives say what the validators do, for tools that read schema.py's output and run none of this.
_SECONDS_TEXT = rf"^\s*(\d*[1-9]\d*(\.\d+)?|\d+\.\d*[1-9]\d*)\s*({'|'.join(_SECONDS)})\s*$"
_BYTES_TEXT = rf"^\s*\d+(\.\d+)?\s*({'|'.join(_BYTES)})\s*$"
Seconds = Annotated[
    float,
    Unit.SECONDS,
    BeforeValidator(_seconds),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema({"type": ["number", "string"], "exclusiveMinimum": 0, "pattern": _SECONDS_TEXT}),
]
ByteCount = Annotated[
    int,
    Unit.BYTES,
    BeforeValidator(_bytes),
    Field(ge=0),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 0, "pattern": _BYTES_TEXT}),
]
# Strict, because YAML's yes would pass for 1.
Count = Annotated[int, Field(strict=True)]
RegistryName = Annotated[str, AfterValidator(_host)]
LayoutPrefix = Annotated[
    str, AfterValidator(_layout_prefix), WithJsonSchema({"type": "string", "pattern": r"^oci-layout(\+[^:]+)?://([^:]|:[^:])*:?$"})
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class RegistryHost(_Section):
    """How one registry host is reached."""

    plain_http: bool = Field(
        default=False,
        description="Speak HTTP without TLS to this host. A host that such a registry redirects to, or fetches tokens from, needs an entry of its own.",
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of certificate authorities, trusted for this host in addition to the system's."
    )
    credentials_file: Path | None = Field(
        default=None, description="Docker config.json whose `auths` are used for this host when a volume brings no credentials."
    )


class Pull(_Section):
    """How models are pulled."""

    active_blobs: Count = Field(
        default=4, ge=1, le=64, description="Layers that are downloaded from one registry host at the same time, over all pulls."
    )
    connections_per_blob: Count = Field(
        default=2, ge=1, le=16, description="Range connections that share one layer, where the registry serves ranges."
    )
    buffers: Count = Field(
        default=16, ge=2, le=256, description="Buffers of 4 MiB in the process's one pool; bounds the memory of all pulls."
    )
    decoders: Count = Field(
        default=8, ge=1, le=64, description="Compressed layers that are decoded at the same time; one registry's are half of them at most."
    )
    linger: Seconds = Field(default=600, description="How long a pull goes on after the last volume that waits for it has left.")
    connect_timeout: Seconds = Field(default=10, description="Limit for connecting to a registry, name look-up and TLS handshake included.")
    stall_timeout: Seconds = Field(
        default=30,
        description="A response that delivers less than 16 KiB in so long, or less than 4 MiB in ten times so long, unless that ends it, is given up "
        "and asked for again.",
    )
    retries: Count = Field(
        default=5,
        ge=0,
        le=100,
        description="Attempts after the first, with jittered exponential backoff, for a request that made no progress (1 MiB, or its end). "
        "A registry that asks for a pause (Retry-After) of up to a minute gets it; a longer one ends the pull with an error that names it.",
    )
    free_space_reserve: ByteCount = Field(default=1 << 30, description="Bytes that a pull leaves free on the state directory's filesystem.")


class Views(_Section):
    """How views are mounted."""

    strategy: Literal["auto", "erofs-direct", "erofs-loop", "erofs-buffered", "materialise"] = Field(
        default="auto", description="Force one rung of the mount ladder; `auto` takes the highest that the node's probe saw working."
    )
    idle: Seconds = Field(
        default=600, description="How long a view stays mounted after its last volume has left, so that the next pod finds its pages."
    )


class Layouts(_Section):
    """OCI layouts over CSI."""

    allowed_prefixes: tuple[LayoutPrefix, ...] = Field(
        default=(), description="URL prefixes (`oci-layout:///srv/models/`) below which volumes may name OCI layouts."
    )


class Csi(_Section):
    """The CSI services."""

    driver_name: str = Field(
        default="csi-model.dev", pattern=r"^[a-z][a-z0-9.-]{0,61}[a-z]$", description="Name under which kubelet knows the driver."
    )
    workers: Count = Field(
        default=256,
        ge=34,
        le=4096,
        description="Threads of the CSI server; each publish that waits for a pull takes one, and may take all but 32.",
    )
    kubelet_root: Path = Field(default=Path("/var/lib/kubelet"), description="Target paths outside this directory are refused.")


class Kubernetes(_Section):
    """What the driver does with the Kubernetes API when it runs with `--kubernetes`; no pod ever waits for it."""

    events: bool = Field(default=True, strict=True, description="Write events on pods about their models, and on the node about trouble.")
    startup_taint: bool = Field(
        default=True,
        strict=True,
        description="Remove the taint `<driverName>/agent-not-ready` from this node once kubelet has listed the driver in CSINode.",
    )


class Config(_Section):
    """The whole file."""

    registries: dict[RegistryName, RegistryHost] = Field(
        default_factory=dict, description="Settings by registry host, with its port where it has one."
    )
    pull: Pull = Field(default_factory=Pull)
    views: Views = Field(default_factory=Views)
    layouts: Layouts = Field(default_factory=Layouts)
    csi: Csi = Field(default_factory=Csi)
    kubernetes: Kubernetes = Field(default_factory=Kubernetes)
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severe message that is logged.")
