"""csi-model: model artifacts and images from OCI registries, as verified read-only Kubernetes volumes."""

__version__ = "0.1.0"
