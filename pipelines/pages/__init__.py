"""Pages for people, self-contained: no script, font or style from outside."""
