"""Operators that hand work to an engine and wait."""
