"""What old versions, runs and tables leave behind: what is needed by whom, and how the rest is removed."""
