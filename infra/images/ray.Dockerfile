# Ray's head, workers and the server. TORCH=cpu is the small build of PyTorch for machines without a GPU; TORCH=default is
# the registry's, which brings CUDA's libraries and needs the driver of the node only. Build from the repository's root,
# see infra/kubernetes/README.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV=0.13.9
ARG TORCH=cpu
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir uv==${UV}
WORKDIR /opt/penchant
COPY pyproject.toml constraints.txt ./
RUN if [ "${TORCH}" != default ]; then export UV_TORCH_BACKEND="${TORCH}"; fi \
    && /uv/bin/uv pip install --system --no-cache --compile-bytecode -c constraints.txt -r pyproject.toml --extra ray
COPY infra infra
COPY schemas schemas
COPY ray_jobs ray_jobs
COPY infra/images/penchant /usr/local/bin/penchant
RUN python -m compileall -q . && chmod 755 /usr/local/bin/penchant

FROM ${BASE}
ARG REVISION
RUN test -n "${REVISION}" || { echo "give --build-arg REVISION=<revision of the code>" >&2; exit 1; }
# KubeRay's probes call wget, and its start command bash.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 procps wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /scratch --create-home penchant
COPY --from=build /usr/local /usr/local
COPY --from=build /opt/penchant /opt/penchant
LABEL org.opencontainers.image.title="penchant-ray" org.opencontainers.image.revision="${REVISION}"
ENV PENCHANT_REVISION=${REVISION} \
    PENCHANT_PROFILE=cluster \
    PENCHANT_HOME=/scratch/penchant \
    PYTHONPATH=/opt/penchant \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TZ=UTC \
    OMP_WAIT_POLICY=PASSIVE \
    TOKENIZERS_PARALLELISM=false \
    RAY_AUTH_MODE=token \
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.25 \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1
WORKDIR /scratch
USER 1000:1000
