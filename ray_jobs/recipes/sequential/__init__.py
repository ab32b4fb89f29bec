"""Recipes that read item ids."""
