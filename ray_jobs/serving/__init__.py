"""A registered model over HTTP, through Ray Serve: batched, and exchanged on an alias move without losing a request."""
