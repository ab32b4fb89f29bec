"""Tables whose log or seal is damaged or lost: refused before Spark is asked, which has no words for it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines import delta_tables
from pipelines.delta_tables import read_table, write_partition
from schemas.errors import DataError
from schemas.run_identity import RunIdentity
from schemas.table_seal import MARK, NAME, seal_table
from schemas.tables import TABLES

NO_SPARK: Any = None
IDENTITY = RunIdentity(dag="d", partition="2026-01-01", recipe="r", config_hash="c")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", ["seal lost", "checkpoint lost", "checkpoint named", "commit lost"])
def test_a_damaged_table_is_refused_before_spark_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, sealed: bool
) -> None:
    if damage == "seal lost" and not sealed:
        pytest.skip("there is none")
    uri = str(tmp_path / "items")
    for number in range(3):
        write_deltalake(uri, pa.table({"n": [number]}), mode="append")
    seal_table(uri)
    if not sealed:
        Path(uri, NAME).unlink()
        Path(uri, MARK).unlink()
    log = Path(uri, "_delta_log")
    match damage:
        case "seal lost":
            Path(uri, NAME).unlink()
        case "checkpoint lost":
            DeltaTable(uri).create_checkpoint()
            next(log.glob("*.checkpoint.parquet")).unlink()
        case "checkpoint named":
            (log / "_last_checkpoint").write_text('{"version": 99, "size": 1}')
        case "commit lost":
            (log / f"{1:020}.json").unlink()
    monkeypatch.setattr(delta_tables, "conform", lambda frame, *_: frame)
    for use in (
        lambda: read_table(NO_SPARK, uri),
        lambda: write_partition(NO_SPARK, NO_SPARK, TABLES["items"], uri, {"partition_date": "2026-01-01"}, IDENTITY),
    ):
        with pytest.raises(DataError, match=r"items.*(from a copy|with a copy|Remove this file)") as refused:
            use()
        assert len(str(refused.value)) <= 300
