"""The registration of a data set: where its landing files are and how to read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from infra import storage
from infra.home import here
from infra.state import damaged
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
        format: one of `FORMATS`; ``columns`` is any CSV or Parquet file with a column mapping.
        reviews: path or address of the review (or rating) file; ``{partition}`` in it is replaced by the day.
        items: path or address of the item file, if any.
        events: path or address of a CSV or Parquet file of events (views, clicks, purchases). With it the
            interactions come from the events, otherwise from the reviews.
        review_columns, item_columns: for ``columns``: our column name -> theirs.
        event_columns, event_dates: our column name -> theirs in the event file, and its date format.
        unknown_items: what happens to a review whose item has no metadata: ``quarantine`` it, or ``keep`` it
            and create an item without a title. Without an item file always ``keep``.
        scale, dates, time_zone, decimal: for ``columns``: see `schemas.spelling.Spelling`.
        encoding: of text files, a name that Python knows.
        separator: of text files, a character; empty to detect it from the header.
        escape: a backslash if it escapes quotes in text files, else empty.
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
                f"data set {self.name}: --scale, --dates, --time-zone and --decimal need --format columns; "
                f"the format {self.format} fixes how ratings and dates are written"
            )

    def require_ratings(self, reader: str, remedy: str) -> None:
        """Refuse a data set without ratings.

        Args:
            reader: what needs them, for the message.
            remedy: what to do instead, for the message.

        Raises:
            DataError: it has none.
        """
        if self.events:
            raise DataError(
                f"{reader} needs ratings, but the interactions of data set {self.name} come from events, which have "
                f"none: {remedy}"
            )
        if not self.spelling().rated:
            raise DataError(
                f"{reader} needs ratings, but data set {self.name} is registered without them (scale none): {remedy}"
            )

    def categorised(self) -> bool:
        """Whether its item file may have categories; one with a column mapping has those that it maps."""
        return bool(self.items) and (not self.item_columns or "categories" in self.item_columns)

    def spelling(self) -> Spelling:
        """How ratings, numbers and dates are written in the files."""
        return Spelling(scale=self.scale, dates=self.dates, time_zone=self.time_zone, decimal=self.decimal)

    def event_spelling(self) -> Spelling:
        """How dates are written in the event file."""
        return Spelling(scale=NONE, dates=self.event_dates, time_zone=self.time_zone)

    @classmethod
    def load(cls, folder: str, name: str) -> "Dataset":
        """Read the registration of `name` from the address `folder`.

        Raises:
            DataError: the name is invalid or not registered.
            DamagedFile: the file is damaged.
        """
        address = storage.join(folder, f"{dataset_name(name)}.json")
        remedy = f"register the data set {name} again, which replaces the file"
        try:
            raw = storage.read_json(address, remedy, dict)
        except FileNotFoundError:
            known = [found.removesuffix(".json") for found in storage.names(folder, ".json")] or ["none"]
            raise DataError(
                f"no data set {name!r} is registered in {folder} (registered: {', '.join(known)})"
            ) from None
        home = storage.parent_of(folder)
        places = {key: here(raw[key], home) for key in ("reviews", "items", "events") if isinstance(raw.get(key), str)}
        try:
            return cls(**{**raw, **places})
        except TypeError as error:
            raise damaged(address, error, remedy) from error

    @classmethod
    def find(cls, folder: str, name: str) -> "Dataset | None":
        """The registration of `name`, or None if its tables were made elsewhere."""
        return cls.load(folder, name) if storage.exists(storage.join(folder, f"{name}.json")) else None

    def save(self, folder: str) -> str:
        """Register the data set in `folder`, replacing an earlier registration of the name; returns the address."""
        address = storage.join(folder, f"{self.name}.json")
        storage.write_json(address, asdict(self), sort_keys=True)
        return address
