"""Commands for people; none is a stage."""
