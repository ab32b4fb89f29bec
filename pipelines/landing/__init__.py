"""From landing files to clean rows: readers and cleaning; and planted worlds, which are generated landing files."""
