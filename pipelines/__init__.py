"""Spark jobs: one module per table that it makes."""
