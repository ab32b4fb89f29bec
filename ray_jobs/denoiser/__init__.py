"""A causal language model that is tuned to find noise items in histories (LLM4DSR, arXiv 2408.08208)."""
