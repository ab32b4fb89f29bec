"""Rows of tables as tests write them down."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from pipelines.delta_tables import spark_schema
from schemas.table import DIGEST, SINCE
from schemas.tables import TABLES


def frame_of(spark: SparkSession, name: str, rows: list[tuple]) -> DataFrame:
    """Rows of the table `name`, without the columns that its writer fills in."""
    schema = [field for field in spark_schema(TABLES[name]) if field.name not in (SINCE.name, DIGEST.name)]
    return spark.createDataFrame(rows, StructType(schema)).coalesce(1)
