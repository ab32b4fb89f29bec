"""Recipes that write semantic ids."""
