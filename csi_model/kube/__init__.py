"""The Kubernetes API, for what people see there: events on pods and on the node, and the startup taint. No pod ever waits for it."""
