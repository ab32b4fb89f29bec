"""Recipes that give items their semantic ids."""
