"""The training loop, shared by every model that has a loss, and its runs on Ray Train."""
