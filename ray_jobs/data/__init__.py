"""Training data: tables in, tensors out."""
