"""Tokenizer recipes: vectors of items to code tuples."""
