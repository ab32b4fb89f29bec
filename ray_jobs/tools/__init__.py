"""Commands that a person runs; no stage."""
