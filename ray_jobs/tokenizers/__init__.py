"""What tokenizers share: their contract, codebooks, vectors, and what is stored of a fitted one."""
