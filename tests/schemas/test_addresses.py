"""Files at paths and at addresses."""

import pytest

from infra.errors import DamagedFile
from infra.storage import remove
from schemas.addresses import bytes_below, filesystem_of, read_text, write_text


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_text_is_written_read_and_removed(tmp_path, scheme):
    address = f"{scheme}{tmp_path}/new/report.json"
    assert read_text(address) is None
    remove(address)
    write_text(address, "one")
    write_text(address, "zwölf")
    assert read_text(address) == "zwölf"
    assert bytes_below(address) == bytes_below(f"{scheme}{tmp_path}") == 6, "nothing is left beside it"
    (tmp_path / "new" / "report.json").write_bytes(b"\xff")
    with pytest.raises(DamagedFile, match=r"report\.json cannot be read .*delete it and run the stage again"):
        read_text(address)
    remove(address)
    assert read_text(address) is None


def test_spark_and_arrow_have_one_s3():
    addresses = (f"{scheme}://bucket/tables/items?region=eu-west-1" for scheme in ("s3", "s3a"))
    first, second = (filesystem_of(address) for address in addresses)
    assert first == second
    assert first[1] == "bucket/tables/items"
