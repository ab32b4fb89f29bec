"""Nightly tests of Spark stages use the session and settings of the others."""

from tests.pipelines.conftest import jars_dir, settings, spark  # noqa: F401
