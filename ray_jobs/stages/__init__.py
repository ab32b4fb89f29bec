"""The stages of Ray, a module each: its settings and what is checked before an engine loads; `entry` runs them."""
