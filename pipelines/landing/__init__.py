"""Everything between a landing file and clean rows: registration, download, readers, cleaning, and a planted world."""
