"""Constrained generation over a codebook."""
