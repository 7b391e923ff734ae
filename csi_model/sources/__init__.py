"""Where models come from: one protocol, with registries and OCI layouts behind it."""
