"""Retention of model versions, run files and table history: who needs what, and how the rest is removed."""
