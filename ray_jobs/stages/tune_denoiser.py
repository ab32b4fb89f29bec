"""Tune a causal language model with a low-rank adapter to name the items that do not belong in a history.

The training data are windows of real training histories in which one item was swapped for a random one (LLM4DSR,
arXiv 2408.08208). The adapter (PEFT's format, for vLLM's ``--lora-modules``) is stored below ``bundles`` in the home
and in the MLflow run, with a report on held-out users: detection and replacement by the tuned model and its base, next
to item co-occurrence and chance. The same request never tunes twice.
"""
