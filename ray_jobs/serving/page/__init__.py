"""A web page that shows how a preference changes the lists of the registered models."""
