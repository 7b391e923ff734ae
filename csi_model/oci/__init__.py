"""OCI values: digests, references, descriptors, manifests and configs, parsed strictly. No I/O."""
