"""Recipes that assign semantic ids to items."""
