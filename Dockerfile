# syntax=docker/dockerfile:1
# One image for every role. Built from the lock files alone; kernels are compiled here, not when a pod starts.
ARG PYTHON=3.11-slim-bookworm

FROM docker.io/library/python:${PYTHON} AS build
WORKDIR /build
COPY requirements-bootstrap.lock requirements.lock ./
RUN python -m venv /opt/rapid/venv \
 && /opt/rapid/venv/bin/pip install --no-cache-dir --require-hashes -r requirements-bootstrap.lock \
 && /opt/rapid/venv/bin/uv pip sync --python /opt/rapid/venv/bin/python --require-hashes --compile-bytecode requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY rapid rapid
COPY payloads payloads
COPY replay replay
RUN /opt/rapid/venv/bin/uv pip install --python /opt/rapid/venv/bin/python --no-deps --no-build-isolation --compile-bytecode .
# What is in it, for whoever has to know. The tool that lists it stays behind.
COPY requirements-sbom.lock ./
RUN python -m venv /build/sbom \
 && /build/sbom/bin/pip install --no-cache-dir --require-hashes -r requirements-sbom.lock \
 && /build/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/rapid/sbom.cdx.json /opt/rapid/venv
# numba knows a kernel by its source file and the processor: the same files and a processor of the same kind must run it.
ENV NUMBA_CACHE_DIR=/opt/rapid/kernels
RUN /opt/rapid/venv/bin/rapid warm-up

FROM docker.io/library/python:${PYTHON}
RUN groupadd --gid 10001 rapid && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin rapid
COPY --from=build /opt/rapid /opt/rapid
ENV PATH=/opt/rapid/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/opt/rapid/kernels
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["rapid"]
CMD ["--help"]
