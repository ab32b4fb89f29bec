"""A registered data set: where its landing files lie and how to read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.home import here
from infra.state import damaged, read_json, write_json
from schemas.errors import DataError
from schemas.names import dataset_name
from schemas.spelling import NONE, Spelling

FORMATS = ("amazon-2014", "amazon-2018", "amazon-2023", "movielens", "columns")
UNKNOWN_ITEMS = ("quarantine", "keep")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Landing files of one data set.

    Args:
        name: lower case letters, digits, ``-`` and ``_``; names the folder of its tables.
        format: one of `FORMATS`; ``columns`` is a generic CSV or Parquet file with a column mapping.
        reviews: path or address of the review (or rating) file; ``{partition}`` in it is replaced by the day.
        items: path or address of the item file, or None where there is none.
        events: path or address of a file of events (views, clicks, purchases), which the interactions are then made
            of, in CSV or Parquet; None where they are made of the reviews.
        review_columns, item_columns: for ``columns``: our column name -> theirs.
        event_columns, event_dates: our column name -> theirs in the event file, and how it writes dates.
        unknown_items: what happens to a review whose item has no metadata: ``quarantine`` it, or ``keep`` it
            and make an item without a title. With no item file at all it is always ``keep``.
        scale, dates, time_zone, decimal: for ``columns``: see `schemas.spelling.Spelling`.
        encoding, separator, escape: of text files: a name that Python knows; a character, or empty where the header
            tells it; a backslash where it escapes quotes, else empty.
    """

    name: str
    format: str
    reviews: str
    items: str | None = None
    events: str | None = None
    review_columns: Mapping[str, str] = field(default_factory=dict)
    item_columns: Mapping[str, str] = field(default_factory=dict)
    event_columns: Mapping[str, str] = field(default_factory=dict)
    event_dates: str = Spelling.dates
    unknown_items: str = "quarantine"
    scale: str = Spelling.scale
    dates: str = Spelling.dates
    time_zone: str = Spelling.time_zone
    decimal: str = Spelling.decimal
    encoding: str = "utf-8"
    separator: str = ""
    escape: str = ""

    def __post_init__(self) -> None:
        dataset_name(self.name)
        if self.format not in FORMATS:
            raise DataError(f"data set {self.name}: format {self.format!r} is none of {', '.join(FORMATS)}")
        if self.unknown_items not in UNKNOWN_ITEMS:
            raise DataError(f"data set {self.name}: unknown_items is {self.unknown_items!r}, not quarantine or keep")
        if self.spelling() != Spelling() and self.format != "columns":
            raise DataError(
                f"data set {self.name}: --scale, --dates, --time-zone and --decimal go with --format columns; "
                f"{self.format} says itself how ratings and dates are written"
            )

    def require_ratings(self, reader: str, remedy: str) -> None:
        """Refuse what reads ratings where there are none.

        Args:
            reader: what reads them.
            remedy: what to do instead.

        Raises:
            DataError: the data set has none.
        """
        if self.events:
            raise DataError(
                f"{reader} needs ratings, and the interactions of data set {self.name} are made of events, which have "
                f"none: {remedy}"
            )
        if not self.spelling().rated:
            raise DataError(
                f"{reader} needs ratings, and data set {self.name} is registered without (scale none): {remedy}"
            )

    def spelling(self) -> Spelling:
        """How ratings, numbers and dates are written in the files."""
        return Spelling(scale=self.scale, dates=self.dates, time_zone=self.time_zone, decimal=self.decimal)

    def event_spelling(self) -> Spelling:
        """How dates are written in the event file."""
        return Spelling(scale=NONE, dates=self.event_dates, time_zone=self.time_zone)

    @classmethod
    def load(cls, folder: str | Path, name: str) -> "Dataset":
        """Read the registration of `name` from `folder`.

        Raises:
            DataError: no data set can have the name, or there is none; the message lists those that are registered.
            DamagedFile: the registration is cut.
        """
        path = Path(folder) / f"{dataset_name(name)}.json"
        if not path.exists():
            known = sorted(p.stem for p in Path(folder).glob("*.json")) or ["none"]
            raise DataError(f"no data set {name!r} is registered in {folder} (registered: {', '.join(known)})")
        remedy = f"register the data set {name} again, which replaces the file"
        raw = read_json(path, remedy, dict)
        home = str(path.absolute().parent.parent)
        places = {key: here(raw[key], home) for key in ("reviews", "items", "events") if isinstance(raw.get(key), str)}
        try:
            return cls(**{**raw, **places})
        except TypeError as error:
            raise damaged(path, error, remedy) from error

    @classmethod
    def find(cls, folder: str | Path, name: str) -> "Dataset | None":
        """The registration of `name`, or None where there is none, as for tables that were brought ready made."""
        return cls.load(folder, name) if (Path(folder) / f"{name}.json").exists() else None

    def save(self, folder: str | Path) -> Path:
        """Register the data set in `folder`; an existing registration of the name is replaced."""
        path = Path(folder) / f"{self.name}.json"
        write_json(path, asdict(self), sort_keys=True)
        return path
