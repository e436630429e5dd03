"""How the engines run: the recipe's tables `spark` and `ray`. Nothing here changes results."""

from __future__ import annotations

from dataeng.recipe import Table, runtime


class Spark(Table):
    """Table `spark`: settings of the Spark session; a cluster's own come from spark-submit."""

    master: str | None = runtime(None, description="Spark master; by default spark-submit's, else local[*]")
    partitions: int | None = runtime(
        None, ge=1, description="Partitions of inputs and shuffles; by default from the input's bytes"
    )
    driver_memory: str = runtime("2g", description="Heap of the driver (in local mode of everything)")
    conf: dict[str, str] = runtime(default_factory=dict, description="Any further Spark settings")
    packages: bool = runtime(
        True, description="Fetch the S3 jars by spark.jars.packages; false where the image holds them"
    )


class Ray(Table):
    """Table `ray`: where the cluster is, or how a local one is started."""

    address: str | None = runtime(None, description="Cluster to join; by default RAY_ADDRESS, else a local one")
    cpus: int | None = runtime(None, ge=1, description="Logical CPUs of a local cluster; by default max(4, cores)")
    object_store_bytes: int = runtime(
        500_000_000, ge=80_000_000, description="Object store of a local cluster, in bytes"
    )
