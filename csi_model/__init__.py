"""csi-model: model artifacts and images from OCI registries, as verified read-only Kubernetes volumes."""

from importlib.metadata import version

__version__ = version("csi-model")
