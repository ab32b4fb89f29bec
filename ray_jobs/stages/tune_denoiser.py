"""Tune a causal language model to name the items that do not belong in a history, with a low-rank adapter.

The training data make themselves: in windows of real training histories one item is swapped for a stranger (LLM4DSR,
arXiv 2408.08208). The adapter (PEFT's format, for vLLM's ``--lora-modules``) lies in the home's ``bundles`` and in the
MLflow run, with a report on held-out users: detection and replacement by the tuned model and the base, beside item
co-occurrence and chance. The same request never tunes twice.
"""

from infra.settings import load_settings, stage_settings
from ray_jobs.data.settings import training_data_settings
from ray_jobs.denoiser.settings import SECTION as STAGE
from ray_jobs.denoiser.settings import DenoiserSettings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.tune_denoiser`."""
    settings = load_settings()
    stage_settings(DenoiserSettings, settings, request)
    training_data_settings(settings, request)
    from ray_jobs.tune_denoiser import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
