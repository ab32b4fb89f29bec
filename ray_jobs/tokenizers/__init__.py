"""What tokenizers share: their interface, codebooks, vectors and storage."""
