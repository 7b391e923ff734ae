# The driver's image. BASE must hold glibc, certificates, and Python 3.11 or newer with venv and pip as `python3`; what the driver needs of
# it is copied out, so the result holds neither its shell nor its package tools. docs/image.md says what is in it and how it is built.
ARG BASE=docker.io/library/python:3.13-slim
# The same as csi_model.__version__; the build refuses anything else.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=

# Python and the packages that the driver needs: changes seldom, and is cached.
FROM ${BASE} AS runtime
COPY pyproject.toml constraints.txt /src/
RUN python3 -m venv /build \
 && /build/bin/python -m pip install --quiet --no-cache-dir --upgrade --constraint /src/constraints.txt setuptools \
 && python3 -m venv --without-pip /opt/csi-model \
 && python3 -c "import tomllib; print(*tomllib.load(open('/src/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" >/build/wanted \
 && /build/bin/python -m pip --python /opt/csi-model/bin/python install --quiet --no-cache-dir --no-compile --only-binary :all: \
    --constraint /src/constraints.txt --requirement /build/wanted
COPY deploy/image /src/deploy/image
RUN python3 /src/deploy/image/runtime.py /opt/csi-model /image/runtime \
 && python3 /src/deploy/image/packages.py dependencies /opt/csi-model /image/dependencies \
 && python3 /src/deploy/image/settle.py /image/runtime /image/dependencies

# The driver, from the wheel that the project builds.
FROM runtime AS driver
ARG VERSION
COPY . /src
RUN /build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist /src \
 && /build/bin/python -m pip --python /opt/csi-model/bin/python install --quiet --no-index --no-deps --no-compile /dist/*.whl \
 && python3 /src/deploy/image/packages.py driver /opt/csi-model /image/driver \
 && python3 /src/deploy/image/sbom.py /opt/csi-model /image/runtime "${VERSION}" /image/driver/opt/csi-model/sbom.cdx.json \
 && python3 /src/deploy/image/settle.py /image/driver

FROM scratch
COPY --from=runtime /image/runtime /
COPY --from=runtime /image/dependencies /
COPY --from=driver /image/driver /
# The root filesystem may be read-only: bytecode is there already, and all state is in --state-dir.
ENV PATH=/opt/csi-model/bin:/usr/local/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1
ARG BASE
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="csi-model" \
      org.opencontainers.image.description="Kubernetes CSI node driver that mounts OCI model artifacts and images read-only" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
# Root, and privileged on the node, for mounts.
ENTRYPOINT ["/opt/csi-model/bin/csi-model"]
CMD ["--help"]
