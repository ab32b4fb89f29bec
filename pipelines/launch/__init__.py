"""Scripts that spark-submit starts."""
