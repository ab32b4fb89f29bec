"""Settings of the ledger: how requests are sent and what they may cost."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, Positive, Share
from infra.errors import SettingError
from infra.settings import Settings
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


@dataclass(frozen=True, kw_only=True)
class LedgerSettings(Bounded):
    """How requests are sent, what they may cost, and how many bad answers are tolerated.

    Args:
        chunk: requests in the first chunk that is committed to the table.
        chunk_seconds: chunks grow until one takes about so long.
        tasks: Spark tasks that share ``llm.concurrency``; more than one if a single Python process is too slow.
        bad_attempts: attempts in all, within a run, for a request whose answer is refused, truncated or malformed.
        max_bad_share: largest share of refused, truncated, malformed and failed answers; above it the stage fails.
        bad_tolerated: number of bad answers that never fails a stage, however few requests there are.
        max_failures: number of failures after which later runs no longer send a request that the endpoint did not
            answer.
        retries_of_useless: number of later runs that repeat a request whose answer was refused, truncated or malformed;
            a run of a raised generation always repeats it once.
        budget_tokens: tokens, in and out, that one run of a stage may spend; 0 for no limit.
        budget_cost: the same in money, at ``llm.price_in`` and ``llm.price_out``; 0 for no limit.
        dry_run: send and publish nothing, but report what would be sent and what it would cost.
    """

    section: ClassVar[str] = "llm"

    chunk: Count = 64
    chunk_seconds: Positive = 20.0
    tasks: Count = 1
    bad_attempts: Count = 2
    max_bad_share: Share = 0.2
    bad_tolerated: CountOrZero = 5
    max_failures: Count = 3
    retries_of_useless: CountOrZero = 2
    budget_tokens: CountOrZero = 0
    budget_cost: NonNegative = 0.0
    dry_run: bool = False


def ledger_settings(settings: Settings, request: StageRequest) -> LedgerSettings:
    """The ledger's settings for a run.

    Raises:
        SettingError: a name or a value is wrong, or a budget in money has no prices.
    """
    limits, llm = stage_settings(LedgerSettings, settings, request), settings.llm
    if limits.budget_cost and not (llm.price_in or llm.price_out):
        raise SettingError("llm.budget_cost needs prices: set llm.price_in and llm.price_out (per million tokens)")
    return limits
