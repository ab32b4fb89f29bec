"""The model card: the description of a model version in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ray_jobs.data.settings import TIME_SPLIT
from ray_jobs.evaluation.exposure import LIST_LENGTH
from ray_jobs.evaluation.metrics import Paired
from ray_jobs.registry.markup import markdown_table
from ray_jobs.registry.promotion import Decision
from ray_jobs.registry.results import HEADINGS, PREFERENCE, ModelResult, version_of
from ray_jobs.steering.layer import Fit
from schemas.handoff import Handoff
from schemas.recipes import RECIPES

LONGEST = 5000
"""Longest description in characters that MLflow's database takes."""

EXPOSURE = {
    f"coverage_{LIST_LENGTH}": "share of the catalogue in some list",
    f"gini_{LIST_LENGTH}": "Gini of the places items get (0 even, 1 all to few)",
    f"popularity_{LIST_LENGTH}": "mean popularity percentile, 0 to 1",
    f"popularity_bias_{LIST_LENGTH}": "that less the percentile of what users chose",
    f"novelty_{LIST_LENGTH}": "novelty, bits",
}


@dataclass(frozen=True, kw_only=True)
class CardContent:
    """Content of a card.

    Args:
        model_name: registered name.
        results: with slices, of this model first, then of the baselines.
        comparisons: by baseline, the paired difference of this model in NDCG@10.
        exposures: by model, the measures of `EXPOSURE` of its lists.
        items, users: size of the catalogue and number of histories.
        with_preference: number of users with known preferences.
        codebook: version of the semantic ids, empty if the recipe uses none.
        inputs: tables at the versions that were read.
        settings: of the recipe.
        steering: fit of the steering layer; None for a model without one.
        decision: of the promotion gate, None before it.
    """

    model_name: str
    recipe: str
    dataset: str
    partition: str
    run_identity: str
    run_id: str
    git_revision: str
    git_dirty: bool
    items: int
    users: int
    with_preference: int
    results: Sequence[ModelResult]
    comparisons: Mapping[str, Paired] = field(default_factory=dict)
    exposures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    codebook: str = ""
    inputs: Mapping[str, Handoff] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    steering: Fit | None = None
    decision: Decision | None = None


def markdown(content: CardContent, version: str = "") -> str:
    """The card, at most `LONGEST` characters.

    Args:
        version: number of the version, if it exists already.
    """
    parts = {
        "opening": _opening(content),
        "metrics": _metrics(content.results),
        "comparisons": _comparisons(content.comparisons),
        "promotion": _promotion(content.decision),
        "steering": _steering(content.steering),
        "slices": _slices(content.results[0]),
        "exposures": _exposures(content.exposures),
        "usage": _usage(content.model_name, version),
        "limits": _limits(content),
    }
    lines = _lineage(content)

    def card() -> str:
        return "\n\n".join([*(part for part in parts.values() if part), "\n".join(lines)])

    # The run's plots and metrics have what is dropped here.
    for name in ("exposures", "slices"):
        if len(card()) > LONGEST and parts[name]:
            parts[name] = ""
    while len(card()) > LONGEST and len(lines) > 1:
        lines = [*lines[:-2], "... (the rest is in the run's inputs)"]
    return card()[:LONGEST]


def _opening(content: CardContent) -> str:
    known = RECIPES.get(content.recipe)
    summary = f" ({known.summary})" if known else ""
    codes = f", semantic ids from codebook `{content.codebook}`" if content.codebook else ""
    return (
        f"# {content.recipe} for {content.dataset}, {content.partition}\n\n"
        "Recommends the next items for a history of item ids, steered by an optional preference sentence. "
        f"Recipe **{content.recipe}**{summary}{codes}. Trained on {content.users:,} histories over "
        f"{content.items:,} items; {content.with_preference:,} users have preferences extracted from their reviews."
    )


def _metrics(results: Sequence[ModelResult]) -> str:
    given = {True: "history and preferences", False: "history"}
    heads = [f"{result.recipe}, given {given[result.condition == PREFERENCE]}" for result in results]
    held_out = "Test split by time" if version_of(results[0].model) == TIME_SPLIT else "Leave-one-out test split"
    intro = (
        f"{held_out}, {results[0].users:,} users, the whole catalogue ranked but the items of the history. Mean over "
        "users and 95 % confidence interval."
    )
    rows = [(heading, *(result.metrics[name].text() for result in results)) for name, heading in HEADINGS.items()]
    return f"## Metrics\n\n{intro}\n\n{markdown_table(['metric', f'**{heads[0]}**', *heads[1:]], rows)}"


def _comparisons(comparisons: Mapping[str, Paired]) -> str:
    return "\n".join(
        f"- NDCG@10 minus {name}'s, user by user: **{found.difference.mean:+.4f}** ({found.difference.low:+.4f} to "
        f"{found.difference.high:+.4f}), p = {found.p_value:.4f} (random sign flips, {found.users:,} users)"
        for name, found in comparisons.items()
    )


def _promotion(decision: Decision | None) -> str:
    if decision is None:
        return ""
    rows = [
        (c.name, *("-" if n is None else f"{n:.4g}" for n in (c.challenger, c.champion, c.bar)), c.verdict)
        for c in decision.checks
    ]
    table = markdown_table(("check", "this", "champion", "bar", "verdict"), rows)
    notes = [c.note for c in decision.checks if c.told or (c.blocks and (c.bar is None or c.by_interval))]
    return "\n".join([f"## Promotion: {decision.word}\n", table, *(f"\n{note}." for note in notes)])


def _steering(fit: Fit | None) -> str:
    if fit is None:
        return ""
    own = fit.measured
    lines = [
        "## Words\n",
        f"A wish adds {fit.weight:g} nats to the log-probability of an item for each standard deviation by which the "
        f"item matches it, a refusal takes {fit.refusal:g} times as much. Fitted on {own['users']:,.0f} validation "
        f"users: NDCG@10 {own['ndcg_10']:.4f} without words, {own['ndcg_10_own_words']:.4f} with their own, "
        f"{own['ndcg_10_other_words']:.4f} with another user's; the words are built from item texts, the target's "
        "included.",
    ]
    if "own_gain" in own:
        verdict = f"have weight {fit.own_weight:g}" if fit.own_weight else "are not used: no significant gain"
        lines.append(
            f"\nKnown preferences of a user, if a request has no sentence, {verdict} ({own['own_users']:,.0f} users: "
            f"{own['own_gain']:+.4f}, {own['own_gain_low']:+.4f} to {own['own_gain_high']:+.4f})."
        )
    else:
        count = f"{own.get('own_users', 0):,.0f} users have some, too few to measure a gain"
        lines.append(f"\nKnown preferences of a user are not used: {count}.")
    return "\n".join(lines)


def _slices(result: ModelResult) -> str:
    if not result.slices:
        return ""
    rows = [
        (s.kind, s.name, f"{s.users:,}", s.metrics["recall_10"].text(), s.metrics["ndcg_10"].text())
        for s in result.slices
    ]
    table = markdown_table(("users by", "group", "users", "Recall@10", "NDCG@10"), rows)
    note = "Popularity in thirds of all training positions; cold: the target is at none of them."
    return f"## By group of users\n\n{table}\n\n{note}"


def _exposures(exposures: Mapping[str, Mapping[str, float]]) -> str:
    if not exposures:
        return ""
    rows = [(words, *(f"{m[name]:.3f}" for m in exposures.values())) for name, words in EXPOSURE.items()]
    return f"## What it recommends (top {LIST_LENGTH}, test users)\n\n{markdown_table(('', *exposures), rows)}"


def _usage(name: str, version: str) -> str:
    return f"""## Use

```python
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/{name}{f"/{version}" if version else "@champion"}")
history = ["<item id>", "<item id>"]
readers = pd.DataFrame({{"history": [history, history], "preference": ["Prefers ...", "Avoids ..."]}})
model.predict(readers, params={{"k": 10}})["titles"]
```

One row in gives one row out: `item_ids`, `titles`, `scores` (lists, best first), `because` (words of each that a \
wish found) and `unmatched` (phrases that nothing matches). `exclude_seen` (default true) leaves out items of the \
history; `strength` (default 1) says how strongly a preference counts."""


def _limits(content: CardContent) -> str:
    lines = [
        f"- It knows the {content.items:,} items of its catalogue only; unknown ids in a history are skipped, and an "
        "item that arrived later cannot come out.",
        "- Scores order the items of one row; they are not probabilities of a purchase and do not compare across rows "
        "or versions.",
        "- Offline metrics on logged reviews: what users were shown is not known, and popular items are favoured.",
    ]
    if content.with_preference == 0:
        lines.append("- No preference was extracted for this partition, so steering was not measured.")
    if content.git_dirty:
        lines.append("- Trained from a checkout with uncommitted changes: the revision alone does not reproduce it.")
    return "## Limits\n\n" + "\n".join(lines)


def _lineage(content: CardContent) -> list[str]:
    dirty = " with uncommitted changes" if content.git_dirty else ""
    settings = ", ".join(f"{key}={value}" for key, value in sorted(content.settings.items()))
    lines = [
        "## Data and lineage\n",
        f"Run `{content.run_id}`, identity `{content.run_identity}`, code revision `{content.git_revision}`{dirty}.\n",
        "| table | Delta version | rows | schema |",
        "|---|---|---|---|",
    ]
    lines += [f"| {n} | {h.version} | {h.rows:,} | {h.schema_hash} |" for n, h in sorted(content.inputs.items())]
    if settings:
        lines.append(f"\nSettings: {settings}")
    return lines
