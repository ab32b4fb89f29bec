"""Forgetting users: who asked for it, what is theirs, what is left in old versions, and the proof."""
