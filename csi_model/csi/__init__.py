"""The CSI edge: gRPC services for kubelet and the provisioner, and nothing that moves a byte or mounts a view."""
