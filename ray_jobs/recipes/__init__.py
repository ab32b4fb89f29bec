"""Recipes by family: one file per method, and beside them what a family shares."""
