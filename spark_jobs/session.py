"""The Spark session: started late, told where Java, Python and the object store are."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from dataeng import s3, storage
from dataeng.cli import UserError
from dataeng.engine import Spark
from dataeng.recipe import Recipe, main_with_recipe
from dataeng.stage import Manifest

log = logging.getLogger("millrace")

PARTITION_BYTES = 64 << 20
# The four artefacts that write to S3 through the magic committer (Hadoop 3.4.2), without what they pull in.
S3_PACKAGES = (
    "org.apache.hadoop:hadoop-aws:3.4.2",
    "software.amazon.awssdk:bundle:2.29.52",
    "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.2.1",
    "org.apache.spark:spark-hadoop-cloud_2.13:4.1.2",
)
_COMMITTER_CLASSES = (
    "org.apache.hadoop.fs.s3a.S3AFileSystem",
    "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter",
    "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory",
)


def check_java() -> None:
    """Raise UserError unless Java 17 or newer is in JAVA_HOME or on PATH."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    way_out = "install Java 17 or newer (openjdk-17-jre-headless) or set JAVA_HOME"
    if not java or not Path(java).exists():
        raise UserError(f"java: not found in JAVA_HOME or on PATH: {way_out}")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', answer)
    if not found or int(found[1]) < 17:
        raise UserError(f"{java}: is Java {found[1] if found else 'of an unknown version'}: {way_out}")


def _exclusions() -> str:
    """All that the S3 packages would bring along beside each other (globs of Ivy, group:artifact)."""
    groups: tuple[str, ...] = (
        "com.*",
        "commons-*",
        "io.*",
        "jakarta.*",
        "javax.*",
        "joda-time",
        "org.[!a]*",
        "stax",
        "wildfly*",
    )
    groups += ("org.apache.[!hs]*", "org.apache.http*")
    rest = ["org.apache.hadoop:hadoop-[!a]*", "org.apache.hadoop:hadoop-a[!w]*", "org.apache.spark:spark-[!h]*"]
    return ",".join([f"{group}:*" for group in groups] + rest)


def _commit_settings() -> dict[str, str]:
    """Settings that write to s3:// through the magic committer; with them a local write fails."""
    a = "spark.hadoop.fs.s3a"
    return {
        f"{a}.committer.name": "magic",
        f"{a}.committer.magic.enabled": "true",
        f"{a}.committer.abort.pending.uploads": "false",  # true would kill other jobs' uploads
        # s3a:// has this by default; s3:// would silently fall back to renames.
        "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3": _COMMITTER_CLASSES[3],
        "spark.sql.sources.commitProtocolClass": _COMMITTER_CLASSES[1],
        "spark.sql.parquet.output.committer.class": _COMMITTER_CLASSES[2],
        # Falling back to renames on S3 can lose output: an algorithm that does not exist fails fast.
        "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "10",
    }


def _s3_settings(packages: bool) -> dict[str, str]:
    """Settings that let Spark reach s3:// as boto3 does."""
    found = s3.settings()
    a = "spark.hadoop.fs.s3a"
    settings = {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        f"{a}.endpoint.region": found.region,
        f"{a}.attempts.maximum": "20",
        f"{a}.retry.limit": "10",
    }
    if found.endpoint:
        settings |= {
            f"{a}.endpoint": found.endpoint,
            f"{a}.path.style.access": "true",
            f"{a}.connection.ssl.enabled": str(found.endpoint.startswith("https")).lower(),
        }
    if found.access_key and found.secret_key:
        provider = "org.apache.hadoop.fs.s3a." + ("Temporary" if found.token else "Simple") + "AWSCredentialsProvider"
        settings |= {f"{a}.access.key": found.access_key, f"{a}.secret.key": found.secret_key}
    else:  # keys that expire (roles): each process asks for its own
        provider = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
    settings[f"{a}.aws.credentials.provider"] = provider
    if found.token:
        settings[f"{a}.session.token"] = found.token
    if packages:
        settings |= {
            "spark.jars.packages": ",".join(S3_PACKAGES),
            "spark.jars.excludes": _exclusions(),
            "spark.jars.ivySettings": str(Path(__file__).with_name("ivysettings.xml")),
            "spark.jars.ivy": str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "millrace/ivy"),
        }
    return settings


def _settings(config: Spark, partitions: int) -> dict[str, str]:
    quiet = Path(__file__).with_name("log4j2.properties")
    return {
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
        "spark.driver.memory": config.driver_memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{quiet}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(partitions),
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
        "spark.sql.execution.arrow.maxBytesPerBatch": str(32 << 20),
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.files.maxPartitionBytes": str(PARTITION_BYTES),
        "spark.sql.warehouse.dir": "/tmp/millrace-warehouse",
        "spark.python.worker.reuse": "true",
        # A task that dies with its executor is tried again; four times the same failure ends the job.
        "spark.task.maxFailures": "4",
    }


class Engine:
    """Spark for one recipe: ``session()`` starts it at the first call, so finished work starts no JVM."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.config: Spark = recipe.step("spark")
        self._session: SparkSession | None = None

    def partitions(self, input_bytes: int) -> int:
        """Partitions for an input of so many bytes: the recipe's number, or one for each 64 MiB, at least 2."""
        return self.config.partitions or max(2, -(-input_bytes // PARTITION_BYTES))

    def session(self, uses_s3: bool | None = None) -> SparkSession:
        """The session; ``uses_s3`` says that inputs stand on S3 though the root does not."""
        if self._session is None:
            self._session = self._start(
                storage.is_s3(self.recipe.root) or bool(uses_s3) or _names_s3(self.recipe.tables)
            )
        return self._session

    def _start(self, uses_s3: bool) -> SparkSession:
        check_java()
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1") if self._is_local() else None
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        settings = _settings(self.config, self.partitions(0))
        if uses_s3:
            settings |= _s3_settings(self.config.packages)
        if storage.is_s3(self.recipe.root):
            settings |= _commit_settings()
        builder = SparkSession.builder.appName(f"millrace {self.recipe.path}")
        if self.config.master:
            builder = builder.master(self.config.master)
        for key, value in (settings | self.config.conf).items():
            builder = builder.config(key, value)
        log.info("spark: starting")
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            session = builder.getOrCreate()
        except Exception as error:
            if "Service 'sparkDriver'" in str(error) or "BindException" in str(error):
                raise UserError(f"spark: cannot bind its driver's port: {str(error).splitlines()[0]}") from None
            raise
        # PySpark's own handler asks the JVM over the connection that is waiting for it, and fails.
        signal.signal(signal.SIGINT, interrupt)
        session.sparkContext.setLogLevel("ERROR")
        if uses_s3:
            _check_committer(session)
        return session

    def _is_local(self) -> bool:
        return (self.config.master or "local").startswith("local")

    def abandon(self) -> None:
        """End the JVM at once: after an interruption its connection still waits for the answer to a running job."""
        self._session = None
        process = getattr(SparkContext._gateway, "proc", None)
        if process is None:  # spark-submit started us, and ends with us
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()

    def stop(self) -> None:
        """End the session, if one was started."""
        if self._session is not None:
            self._session.stop()
            self._session = None


def _names_s3(value: Any) -> bool:
    """Whether any value of a recipe's tables stands on object storage."""
    if isinstance(value, dict):
        return any(_names_s3(item) for item in value.values())
    if isinstance(value, list):
        return any(_names_s3(item) for item in value)
    return isinstance(value, str) and storage.is_s3(value)


def _check_committer(session: SparkSession) -> None:
    """Refuse to go on where Spark would silently fall back to the committer that renames."""
    jvm = session.sparkContext._jvm
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()  # type: ignore[union-attr]
    for name in _COMMITTER_CLASSES:
        # Asked for as a file: loading a class that is missing raises, and PySpark takes minutes to translate that.
        if loader.getResource(name.replace(".", "/") + ".class") is None:
            session.stop()
            way_out = (
                f"run it by plain python with spark.packages = true, or give spark-submit {', '.join(S3_PACKAGES)}"
            )
            raise UserError(f"spark: {name} is missing, so output on s3:// could be lost: {way_out}")


def job(step: Callable[[Engine, Recipe], Manifest | None]) -> None:
    """A Spark job's entry point: the recipe checked, the step run, the session ended."""

    def main(recipe: Recipe) -> None:
        recipe.check_files()
        engine = Engine(recipe)
        try:
            step(engine, recipe)
        except KeyboardInterrupt:
            engine.abandon()
            raise
        finally:
            engine.stop()

    main_with_recipe(main)
