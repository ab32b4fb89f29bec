"""A causal language model, tuned to name the items that do not belong in a history (LLM4DSR, arXiv 2408.08208)."""
