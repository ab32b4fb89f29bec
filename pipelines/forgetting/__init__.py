"""Erasure of users: requests, rows to delete, old table versions, and the proof."""
