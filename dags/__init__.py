"""When things run, in which order, with which parameters; nothing here computes."""
