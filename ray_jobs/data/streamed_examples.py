"""Training examples that do not fit in memory: distributed at random over Parquet files and streamed with Ray Data.

The files are random samples of all examples. An epoch reads them in random order and shuffles groups of about a file's
size, so that only the rows of a few files are in memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from ray_jobs.data.batches import BUCKET, Batch, bucketed, to_batch
from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.crops import Crop
from ray_jobs.data.example_tables import from_table, table_schema, to_table
from ray_jobs.data.examples import Examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.rows import offsets_of
from ray_jobs.recommenders.base import Recommender
from schemas.addresses import filesystem_of, read_text, write_text
from schemas.artifact_seal import read_seal_text, seal_text
from schemas.digests import changed, digest_of
from schemas.errors import DataError

MANIFEST = "manifest.json"
ROWS_PER_FILE = 200_000
READERS = 2
_AGAIN = "remove the folder and train again"
Slice = tuple[int, int, int]


@dataclass(frozen=True)
class StreamedExamples:
    """A `ray_jobs.training.trainable.BatchSource` over the files of `write_examples`.

    Args:
        folder: a path or an address in an object store that all workers can read.
        rows: number of examples in each file.
        preferences: number of examples with a preference.
        history_items: number of items in all histories of an epoch; the mean where they are cropped.
        lengths: each length of a history, and how many have it.
        crop: what every epoch takes of the histories; None for all.
    """

    folder: str
    rows: tuple[int, ...]
    preferences: int
    history_items: float
    lengths: tuple[tuple[int, int], ...] = ()
    crop: Crop | None = None

    def cropped_by(self, crop: Crop | None) -> "StreamedExamples":
        """The same examples, of whose histories every epoch takes a part."""
        if crop is None:
            return self
        return replace(self, crop=crop, history_items=crop.expected_items(*zip(*self.lengths, strict=True)))

    def __len__(self) -> int:
        return sum(self.rows)

    def batches(
        self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0
    ) -> Iterator[Batch]:
        """One epoch in an order that depends on `seed` only; None keeps the files' order and gives each worker all.

        Workers get equal, contiguous shares of the epoch's sequence of files; the remainder of an even division is
        dropped. Skipped batches are not read, except those of the first group.
        """
        order = np.arange(len(self.rows)) if seed is None else np.random.default_rng(seed).permutation(len(self.rows))
        share = len(self) if seed is None else len(self) // world
        first = 0 if seed is None else rank * share
        group = self._batches_per_group(batch_size)
        starts = range(skip // group * group * batch_size, share, group * batch_size)
        work = [
            {
                "slices": self._slices(order, first + start, first + min(start + group * batch_size, share)),
                "number": start,
            }
            for start in starts
        ]
        rest = skip % group
        for row in self._stream(work, batch_size, seed) if work else ():
            if rest:
                rest -= 1
            else:
                yield _unpacked(row["batch"])

    def _batches_per_group(self, batch_size: int) -> int:
        """The number of batches of about a file, in whole buckets."""
        rows = max(1, len(self) // max(1, len(self.rows)))
        return max(1, round(rows / (BUCKET * batch_size))) * BUCKET

    def _slices(self, order: IntArray, start: int, stop: int) -> list[Slice]:
        """Examples `start` to `stop` of the files in `order` as (file, first row, end)."""
        slices, passed = [], 0
        for file in order.tolist():
            begin, end = max(start - passed, 0), min(stop - passed, self.rows[file])
            if begin < end:
                slices.append((file, begin, end))
            passed += self.rows[file]
        return slices

    def _stream(self, work: Sequence[dict[str, Any]], batch_size: int, seed: int | None) -> Iterator[dict[str, Any]]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.verbose_stats_logs = False
        context.execution_options.preserve_order = True
        groups = ray.data.from_items([{"group": n} for n in range(len(work))], override_num_blocks=len(work))
        rows = groups.flat_map(
            lambda row: _group(self.folder, work[row["group"]], batch_size, seed, self.crop),
            num_cpus=0,  # the training workers may hold all CPUs
            concurrency=min(READERS, len(work)),
        )
        return iter(rows.iter_rows())


def _group(
    folder: str, work: dict[str, Any], batch_size: int, seed: int | None, crop: Crop | None
) -> list[dict[str, Any]]:
    """The batches of one group, one row each."""
    filesystem, path = filesystem_of(folder)
    tables = [
        pq.read_table(f"{path}/{_file(file)}", filesystem=filesystem, page_checksum_verification=True).slice(
            start, stop - start
        )
        for file, start, stop in work["slices"]
    ]
    table = pa.concat_tables(tables)
    if seed is None:
        cuts = [np.arange(at, min(at + batch_size, len(table))) for at in range(0, len(table), batch_size)]
    else:
        if crop is not None:
            table = to_table(crop.cut(from_table(table), seed))
        rng = np.random.default_rng((seed, work["number"]))
        order = rng.permutation(len(table))
        lengths = table["history"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
        cuts = bucketed(order, lengths, batch_size, rng)
    return [{"batch": _packed(table.take(cut))} for cut in cuts]


def _packed(table: pa.Table) -> bytes:
    """As bytes, since all rows of Ray Data have the same columns, unlike batches."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _unpacked(content: bytes) -> Batch:
    with pa.ipc.open_stream(content) as reader:
        return to_batch(from_table(reader.read_all()))


def example_parts(recommender: Recommender, histories: Histories, rows: int) -> Iterator[Examples]:
    """The training examples of `recommender`, in parts of about `rows` examples of consecutive users."""
    several = recommender.every_prefix and recommender.crop is None
    counts = histories.training_ends if several else np.ones(len(histories), dtype=np.int64)
    passed = offsets_of(counts)
    start = 0
    while start < len(histories):
        stop = min(int(np.searchsorted(passed, passed[start] + rows)), len(histories))
        yield recommender.training_examples(histories.part(start, stop))
        start = stop


def write_examples(folder: str, parts: Iterable[Examples], files: int, seed: int) -> StreamedExamples:
    """Distribute examples at random over `files` Parquet files, or use those of a complete earlier call.

    Args:
        folder: a path or an address in an object store.
        parts: the examples, read one part at a time.
        files: about one per `ROWS_PER_FILE` examples.

    Raises:
        DataError: the files of an earlier call are damaged.
    """
    written = read_text(f"{folder}/{MANIFEST}")
    if written is not None:
        content = read_seal_text(written, f"{folder}/{MANIFEST}", _AGAIN)
        for name in changed(*filesystem_of(folder), content["digests"]):
            raise DataError(f"{folder}/{name} is not as it was written: it is damaged; {_AGAIN}")
        return _described(folder, content)
    filesystem, path = filesystem_of(folder)
    filesystem.create_dir(path, recursive=True)
    rng = np.random.default_rng(seed)
    counts, preferences, lengths = np.zeros(files, dtype=np.int64), 0, Counter[int]()
    writers = [
        pq.ParquetWriter(f"{path}/{_file(n)}", table_schema(), filesystem=filesystem, write_page_checksum=True)
        for n in range(files)
    ]
    for part in parts:
        table, dealt = to_table(part), rng.integers(files, size=len(part))
        for number, writer in enumerate(writers):
            chosen = np.flatnonzero(dealt == number)
            if len(chosen):
                writer.write_table(table.take(chosen))
        counts += np.bincount(dealt, minlength=files)
        preferences += sum(bool(preference) for preference in part.preferences)
        lengths.update(
            dict(zip(*(values.tolist() for values in np.unique(part.lengths, return_counts=True)), strict=True))
        )
    for writer in writers:
        writer.close()
    infos = filesystem.get_file_info([f"{path}/{_file(n)}" for n in range(files)])
    digests = {info.base_name: digest_of(filesystem, info) for info in infos}
    content = {
        "rows": counts.tolist(),
        "preferences": preferences,
        "history_items": sum(length * count for length, count in lengths.items()),
        "lengths": sorted(lengths.items()),
        "digests": digests,
    }
    write_text(f"{folder}/{MANIFEST}", seal_text(content))
    return _described(folder, content)


def _described(folder: str, content: Mapping[str, Any]) -> StreamedExamples:
    lengths = tuple((length, count) for length, count in content.get("lengths", ()))
    return StreamedExamples(folder, tuple(content["rows"]), content["preferences"], content["history_items"], lengths)


def remove_examples(folder: str) -> None:
    """Remove what `write_examples` wrote, if anything."""
    filesystem, path = filesystem_of(folder)
    if filesystem.get_file_info(path).type != fs.FileType.NotFound:
        filesystem.delete_dir(path)


def _file(number: int) -> str:
    return f"examples-{number:05}.parquet"
