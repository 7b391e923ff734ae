"""The csi-model command."""
