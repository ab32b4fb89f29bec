"""The stages of Ray, a module each: its command line and its settings, which are checked before an engine loads."""
