"""Tune a causal language model with a low-rank adapter to name the items that do not belong in a history.

The training data are windows of real training histories in which one item was swapped for a random one (LLM4DSR,
arXiv 2408.08208). The adapter (PEFT's format, for vLLM's ``--lora-modules``) is stored below ``bundles`` in the home
and in the MLflow run, with a report on held-out users: detection and replacement by the tuned model and its base, next
to item co-occurrence and chance. The same request never tunes twice.
"""

from ray_jobs.denoiser.settings import SECTION as STAGE
from ray_jobs.stages.entry import checked_run
from schemas.stage_runner import run_stage

run = checked_run(STAGE)

if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
