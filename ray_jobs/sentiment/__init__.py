"""Sentiment classifiers of review texts."""
