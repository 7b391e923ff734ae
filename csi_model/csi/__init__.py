"""The CSI edge: gRPC services, error codes and registration with kubelet."""
