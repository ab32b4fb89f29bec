# Spark's executors on Kubernetes, and master and workers of a standalone cluster. The JARs of Delta come from the driver.
# Build from the repository's root, see infra/kubernetes/README.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV=0.13.9
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir uv==${UV}
WORKDIR /opt/penchant
COPY pyproject.toml constraints.txt ./
RUN /uv/bin/uv pip install --system --no-cache --compile-bytecode -c constraints.txt -r pyproject.toml --extra spark
COPY infra infra
COPY schemas schemas
COPY pipelines pipelines
COPY infra/images/penchant infra/images/spark-node /usr/local/bin/
RUN python -m compileall -q . && chmod 755 /usr/local/bin/penchant /usr/local/bin/spark-node \
    && ln -s "$(python -c 'import pyspark; print(pyspark.__path__[0])')" /opt/spark

FROM ${BASE}
ARG REVISION
RUN test -n "${REVISION}" || { echo "give --build-arg REVISION=<revision of the code>" >&2; exit 1; }
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /scratch --create-home penchant
COPY --from=build /usr/local /usr/local
COPY --from=build /opt /opt
LABEL org.opencontainers.image.title="penchant-spark" org.opencontainers.image.revision="${REVISION}"
ENV PENCHANT_REVISION=${REVISION} \
    PENCHANT_PROFILE=cluster \
    PENCHANT_HOME=/scratch/penchant \
    SPARK_HOME=/opt/spark \
    PYSPARK_PYTHON=/usr/local/bin/python \
    PYTHONPATH=/opt/penchant \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TZ=UTC \
    OMP_WAIT_POLICY=PASSIVE \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1
WORKDIR /scratch
USER 1000:1000
ENTRYPOINT ["tini", "--", "spark-node"]
