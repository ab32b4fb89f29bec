"""Ranking metrics per user over the full catalogue, with intervals, paired tests and slices; steerability."""
