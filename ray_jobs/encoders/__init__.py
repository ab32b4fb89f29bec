"""Frozen encoders behind one contract."""
