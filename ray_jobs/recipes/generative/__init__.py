"""Recipes that generate semantic ids."""
