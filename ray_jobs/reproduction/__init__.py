"""Reproduction of published results on the field's benchmark sequences."""
