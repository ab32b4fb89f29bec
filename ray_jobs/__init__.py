"""Everything with tensors: encoders, tokenizers, recommenders, decoding, evaluation, registry."""
