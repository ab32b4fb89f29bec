"""Champion or challenger: a pure decision, and an alias move that is read back."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

CHALLENGER = "challenger"
CHAMPION = "champion"


class AliasConflict(RuntimeError):
    """Another promoter moved the alias at the same time; the stage may be run again."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is recorded about a model version.

    Args:
        ndcg_10: on the test split, under the condition the version is served with; None where not recorded.
    """

    version: str
    partition: str
    ndcg_10: float | None


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and the number that decided."""

    promote: bool
    reason: str

    @property
    def word(self) -> str:
        """``promoted`` or ``kept``, for tags and counts."""
        return "promoted" if self.promote else "kept"


def decide(challenger: Standing, popularity: float, champion: Standing | None) -> Decision:
    """Decide by NDCG@10 on the test split of the challenger's partition.

    The challenger must be above popularity, must not be of an older day than the champion, and must not be worse
    than the champion where both were measured on the same day. A champion measured on another day is no bar: its
    number says nothing about this day's users.
    """
    assert challenger.ndcg_10 is not None
    own = challenger.ndcg_10
    if not own > popularity:
        return Decision(False, f"NDCG@10 {own:.4f} is not above popularity's {popularity:.4f}")
    above = f"NDCG@10 {own:.4f} is above popularity's {popularity:.4f}"
    if champion is None or champion.version == challenger.version:
        return Decision(True, f"{above}; there was no champion")
    named = f"champion version {champion.version}"
    if champion.partition > challenger.partition:
        return Decision(False, f"{named} is of the newer day {champion.partition}")
    if champion.ndcg_10 is None or champion.partition != challenger.partition:
        return Decision(True, f"{above}; {named} has no result for {challenger.partition} to compare with")
    if own < champion.ndcg_10:
        return Decision(False, f"NDCG@10 {own:.4f} is below {champion.ndcg_10:.4f} of {named}")
    return Decision(True, f"{above} and not below {champion.ndcg_10:.4f} of {named}")


def version_at(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that `alias` points at, or None."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def point_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Move `alias` to `version` and read it back; the registry has no compare-and-set.

    Raises:
        AliasConflict: it points elsewhere after the move.
    """
    if version_at(client, name, alias) == version:
        return
    client.set_registered_model_alias(name, alias, version)
    found = version_at(client, name, alias)
    if found != version:
        raise AliasConflict(
            f"alias {alias!r} of {name} was set to version {version} and now points at {found}: another promoter is at "
            "work. Let one register stage run at a time, then run this one again."
        )
