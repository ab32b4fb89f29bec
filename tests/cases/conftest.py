"""The cases use the Spark session of the other tests."""

from tests.pipelines.conftest import jars_dir, spark  # noqa: F401
