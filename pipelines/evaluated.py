"""Evaluates a data frame once, so that later queries start from its rows."""

from pyspark import StorageLevel
from pyspark.sql import DataFrame


def evaluated(frame: DataFrame) -> DataFrame:
    """Evaluate `frame` now and keep its rows, on two executors if there are any.

    Kept rows have no lineage, so if all copies are lost, the job fails, and with it the try of its task. One executor
    may end at any time on a cluster, above all on spot nodes.
    """
    local = str(frame.sparkSession.sparkContext.master).startswith("local")
    return frame.localCheckpoint(storageLevel=StorageLevel.MEMORY_AND_DISK if local else StorageLevel.MEMORY_AND_DISK_2)
