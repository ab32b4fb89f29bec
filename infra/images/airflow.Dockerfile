# Airflow's services and tasks. The driver of a Spark stage runs in its task (client mode), so the packages of the Spark
# image and Java are here, too. Build from the repository's root, see infra/kubernetes/README.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV=0.13.9
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir uv==${UV}
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jdk-headless && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/penchant
COPY pyproject.toml constraints.txt ./
RUN /uv/bin/uv pip install --system --no-cache --compile-bytecode -c constraints.txt -r pyproject.toml \
    --extra airflow --extra spark --extra kubernetes
COPY infra infra
ENV PENCHANT_PROFILE=cluster PENCHANT_HOME=/tmp/home
RUN python -m infra.jars --s3
COPY schemas schemas
COPY pipelines pipelines
COPY dags dags
COPY infra/images/penchant /usr/local/bin/penchant
RUN python -m compileall -q . && chmod 755 /usr/local/bin/penchant

FROM ${BASE}
ARG REVISION
RUN test -n "${REVISION}" || { echo "give --build-arg REVISION=<revision of the code>" >&2; exit 1; }
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /scratch --create-home penchant \
    && install -d -o 1000 -g 1000 /scratch/airflow /scratch/airflow/logs
COPY --from=build /usr/local /usr/local
COPY --from=build /opt/penchant /opt/penchant
LABEL org.opencontainers.image.title="penchant-airflow" org.opencontainers.image.revision="${REVISION}"
ENV PENCHANT_REVISION=${REVISION} \
    PENCHANT_PROFILE=cluster \
    PENCHANT_HOME=/scratch/penchant \
    PYTHONPATH=/opt/penchant \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TZ=UTC \
    OMP_WAIT_POLICY=PASSIVE \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1 \
    AIRFLOW_HOME=/scratch/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/penchant/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/penchant/dags/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__API__EXPOSE_CONFIG=False
WORKDIR /scratch
USER 1000:1000
ENTRYPOINT ["tini", "--"]
CMD ["airflow", "version"]
