"""Damaged records of the data docs are named, and do not stop what does not need them."""

from pathlib import Path

import pytest

from infra.errors import DamagedFile
from pipelines.forgetting.proof import Proof, read_proof, write_proof
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult

RESULT = GateResult(
    table="items", description="", partition="2026-01-31", rows=3, seconds=1.0, checked_at="2026-01-31T00:00:00+00:00",
    outcomes=(),
)  # fmt: skip
PROOF = Proof(
    erasure="e1", dataset="shop", requested_on="2026-01-31", reason="", users=("k",),
    checked_at="2026-01-31T00:00:00+00:00", tables=(),
)  # fmt: skip


def test_the_index_goes_on_without_a_damaged_record_and_names_it(tmp_path):
    data_docs.write(str(tmp_path), RESULT)
    (tmp_path / "results" / "reviews--2026-01-31.json").write_text('{"table": "revi')
    data_docs.write(str(tmp_path), RESULT)
    page = (tmp_path / "index.html").read_text()
    assert "<b>items</b>" in page
    assert "reviews--2026-01-31.json cannot be read" in page
    assert "delete it; a run of that partition makes it again" in page


def test_a_cut_proof_is_no_proof_and_no_missing_one(tmp_path):
    page = write_proof(str(tmp_path), PROOF)
    assert read_proof(str(tmp_path), "e1") == PROOF
    record = Path(page).with_suffix(".json")
    for content in (b"", record.read_bytes()[:60], b"{}"):
        record.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"erasure--e1\.json cannot be read .*run the erasure again"):
            read_proof(str(tmp_path), "e1")
