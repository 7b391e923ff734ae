"""Which format a manifest is of, and so where its layers land. A format that is not known is refused by name, never guessed."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from csi_model.formats import image, modelpack, oras
from csi_model.formats.refused import refuse_index, refuse_known
from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest

if TYPE_CHECKING:
    from csi_model.formats.placement import ModelLayout
    from csi_model.oci.manifest import Manifest

__all__ = ["needs_config", "place", "refuse_index"]

_EMPTY_CONFIG = Digest.of(b"{}")


class _Format(enum.Enum):
    IMAGE = enum.auto()
    MODELPACK = enum.auto()
    ORAS = enum.auto()


def needs_config(manifest: Manifest) -> bool:
    """Whether ``place`` has to be given the config's bytes.

    Raises:
        UnsupportedError: the format is known and not supported.
    """
    kind = _classify(manifest)
    return kind is _Format.IMAGE or (kind is _Format.MODELPACK and modelpack.has_config(manifest))


def place(manifest: Manifest, config: bytes | None) -> ModelLayout:
    """Where the layers land. ``config`` is the verified config blob when ``needs_config`` asks for it, else None.

    Raises:
        UnsupportedError: of a format that is not supported; the message names it.
        InvalidRequestError: of a supported format, and malformed.
    """
    kind = _classify(manifest)
    if kind is _Format.IMAGE:
        assert config is not None, "needs_config says that an image's config is needed"
        return image.place(manifest, config)
    if kind is _Format.MODELPACK:
        return modelpack.place(manifest, config)
    return oras.place(manifest)


def _classify(manifest: Manifest) -> _Format:
    """Refusals come first, for some formats look like others: Ollama's config calls itself a Docker image config."""
    refuse_known(manifest)
    if modelpack.is_modelpack(manifest):
        return _Format.MODELPACK
    # ORAS before 1.0 wrote an empty config of the image config's type, and still writes image layer types for plain files.
    borrowed = manifest.config.digest == _EMPTY_CONFIG or any(oras.UNPACK in layer.annotations for layer in manifest.layers)
    layers_are_images = all(layer.media_type in image.LAYERS for layer in manifest.layers)
    if manifest.config.media_type in mediatypes.IMAGE_CONFIGS and layers_are_images and not borrowed:
        return _Format.IMAGE
    return _Format.ORAS
