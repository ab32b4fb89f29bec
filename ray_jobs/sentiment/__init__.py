"""Classifiers of the tone of a review, which see its text only."""
