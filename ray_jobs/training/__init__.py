"""The one training loop, for everything that has a loss and phases, and its runs on Ray Train."""
