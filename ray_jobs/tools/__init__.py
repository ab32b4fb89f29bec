"""Commands for people; no stages."""
