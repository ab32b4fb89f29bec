# MLflow's server with artifacts in an object store, runs and users in PostgreSQL. Build from the repository's root, see
# infra/kubernetes/README.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV=0.13.9
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir uv==${UV}
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN /uv/bin/uv pip install --system --no-cache --compile-bytecode -c constraints.txt -r pyproject.toml --extra mlflow
COPY infra/images/registry-server /usr/local/bin/registry-server
RUN chmod 755 /usr/local/bin/registry-server

FROM ${BASE}
ARG REVISION
RUN test -n "${REVISION}" || { echo "give --build-arg REVISION=<revision of the code>" >&2; exit 1; }
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /scratch --create-home penchant
COPY --from=build /usr/local /usr/local
LABEL org.opencontainers.image.title="penchant-mlflow" org.opencontainers.image.revision="${REVISION}"
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TZ=UTC \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    DO_NOT_TRACK=1
WORKDIR /scratch
USER 1000:1000
EXPOSE 5000
ENTRYPOINT ["tini", "--", "registry-server"]
