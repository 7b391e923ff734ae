# The driver's image. BASE must hold Python 3.11 or newer at /usr/bin/python3 or /usr/local/bin/python3, and glibc.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
COPY . /src
RUN python3 -m venv /opt/csi-model \
 && /opt/csi-model/bin/python -m pip install --no-cache-dir --disable-pip-version-check -c /src/constraints.txt /src \
 && /opt/csi-model/bin/python -m pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
LABEL org.opencontainers.image.title="csi-model" \
      org.opencontainers.image.description="Kubernetes CSI node driver that mounts OCI model artifacts and images read-only" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/csi-model /opt/csi-model
# Privileged on the node, for mounts; the root filesystem may be read-only: all state is in --state-dir.
ENTRYPOINT ["/opt/csi-model/bin/csi-model"]
CMD ["--help"]
