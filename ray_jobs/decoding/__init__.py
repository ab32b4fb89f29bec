"""Beam search constrained to the catalogue."""
