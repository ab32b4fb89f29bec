"""Self-contained pages for people: no external script, font or style."""
