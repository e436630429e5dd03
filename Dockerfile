# Two images: `docker build --target data -t millrace-data:0.1.0 .` and `--target training -t millrace-training:0.1.0`.
# Not built by the project's own checks, which have no container engine: see docs/kubernetes.md.

# --- the environment that both share: the lock file, hashes checked -----------------------------------
FROM python:3.11-slim-bookworm AS environment
# g++ builds fasttext; nothing of it stays in the images below.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/millrace
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir uv==0.13.8
COPY requirements.lock ./
RUN /opt/venv/bin/uv pip install --no-cache --python /opt/venv/bin/python --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY dataeng dataeng
COPY training training
COPY spark_jobs spark_jobs
COPY ray_jobs ray_jobs
COPY configs configs
RUN /opt/venv/bin/uv pip install --no-cache --python /opt/venv/bin/python --no-deps -e .

# --- what Spark needs to write to S3 through the magic committer: these four, nothing that they pull in ---
FROM maven:3-eclipse-temurin-17 AS jars
RUN for artefact in \
      org.apache.hadoop:hadoop-aws:3.4.2 \
      software.amazon.awssdk:bundle:2.29.52 \
      software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.2.1 \
      org.apache.spark:spark-hadoop-cloud_2.13:4.1.2; \
    do mvn -q dependency:copy -Dartifact="$artefact" -DoutputDirectory=/jars || exit 1; done

FROM apache/spark:4.1.2-scala2.13-java17-ubuntu AS spark

# --- data: Python, Java, and the scripts by which Spark starts in a pod --------------------------------
FROM python:3.11-slim-bookworm AS data
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless libgomp1 procps tini \
    && rm -rf /var/lib/apt/lists/* && useradd --uid 10001 --user-group --no-create-home millrace
COPY --from=environment /opt/venv /opt/venv
COPY --from=environment /opt/millrace /opt/millrace
COPY --from=jars /jars /opt/venv/lib/python3.11/site-packages/pyspark/jars
COPY --from=spark /opt/entrypoint.sh /opt/decom.sh /opt/
ENV PATH=/opt/venv/bin:$PATH \
    NUMBA_CACHE_DIR=/tmp/numba \
    JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64 \
    SPARK_HOME=/opt/venv/lib/python3.11/site-packages/pyspark \
    PYSPARK_PYTHON=/opt/venv/bin/python \
    PYSPARK_DRIVER_PYTHON=/opt/venv/bin/python
WORKDIR /opt/millrace
USER 10001
ENTRYPOINT ["/opt/entrypoint.sh"]

# --- training: Ray and PyTorch, no Java ---------------------------------------------------------------
FROM python:3.11-slim-bookworm AS training
# KubeRay's probes call wget.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 procps wget \
    && rm -rf /var/lib/apt/lists/* && useradd --uid 10001 --user-group --no-create-home millrace
COPY --from=environment /opt/venv /opt/venv
COPY --from=environment /opt/millrace /opt/millrace
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /opt/millrace
USER 10001
CMD ["ray", "--help"]
