"""Entry points of the Spark stages: command line and settings, which are checked before an engine is loaded."""
