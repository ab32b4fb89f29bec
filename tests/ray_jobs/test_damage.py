"""Damage at rest: what was written is refused or read as it was, and never anything else."""

import io
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from planted_warehouse import IDENTITY
from small_world import small_catalogue, small_histories

from infra.errors import DamagedFile
from ray_jobs.data.tables import input_table, publish, read_table, table_exists, upsert
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recipes.tokenizers.settings import ItemIndexSettings
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from ray_jobs.tokenizers import stored
from schemas import damaged_files, digests
from schemas.addresses import filesystem_of
from schemas.artifact_seal import SEAL, check_folder, seal_folder
from schemas.errors import LONGEST_MESSAGE, DataError
from schemas.item_vectors import ITEM_VECTORS
from schemas.table_seal import MARK, NAME, check_log, seal_table


def sweep(path: Path, read: Callable[[], Any], places: int = 40) -> Counter[str]:
    """What `read` gives with one flipped bit at each of some places of a file: equal, refused or other."""
    good, whole, chance = read(), path.read_bytes(), random.Random(path.name)
    found: Counter[str] = Counter()
    for place in sorted(chance.sample(range(len(whole)), min(places, len(whole)))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        digests.forget()
        try:
            found["equal" if read() == good else "other"] += 1
        except (DataError, DamagedFile) as error:
            found["refused" if len(str(error)) <= LONGEST_MESSAGE else "wordy"] += 1
    path.write_bytes(whole)
    digests.forget()
    return found


def _table(rows: int, value: float) -> pa.Table:
    return pa.table(
        {
            "item_id": pa.array([f"i{n:03}" for n in range(rows)], pa.string()),
            "content_hash": pa.array(["h"] * rows, pa.string()),
            "vector": pa.array([[float(n), value] for n in range(rows)], pa.list_(pa.float32())),
        }
    )


@pytest.fixture
def uri(tmp_path: Path) -> str:
    uri = str(tmp_path / "item_vectors")
    publish(_table(200, 1.0), ITEM_VECTORS, uri, {"encoder": "hub:a/b c"}, IDENTITY)
    publish(_table(3, 2.0), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY)
    upsert(_table(5, 3.0), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY)
    return uri


def _rows(uri: str) -> list[Any]:
    table = read_table(uri, filters=pc.field("item_id") <= "i150")
    return table.sort_by([("encoder", "ascending"), ("item_id", "ascending")]).to_pylist()


def test_a_flipped_bit_of_a_table_is_refused_or_harmless(uri: str) -> None:
    paths = [path for path in Path(uri).rglob("*") if path.is_file() and path != Path(uri, MARK)]
    assert {path.suffix for path in paths} == {".parquet", ".json"}
    assert len(paths) == 3 + 4 + 1, "files, commits and the seal"
    found = {path.relative_to(uri).as_posix(): sweep(path, lambda: _rows(uri), 10) for path in paths}
    assert not {name: counts for name, counts in found.items() if counts["other"] or counts["wordy"]}
    assert all(counts["refused"] for name, counts in found.items() if "y/" not in name), "no check that cannot fail"


def test_a_damaged_page_is_named_with_table_and_remedy_and_a_storage_that_fails_is_not(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(uri, NAME).unlink()
    Path(uri, MARK).unlink()
    path = max(Path(uri).rglob("*.parquet"), key=lambda one: one.stat().st_size)
    whole, page = path.read_bytes(), pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    path.write_bytes(whole[:page] + b"\xff" * 8 + whole[page + 8 :])
    with pytest.raises(DataError, match=r"table item_vectors at .* is damaged .*Restore that file") as refused:
        read_table(uri)
    assert path.relative_to(uri).as_posix() in str(refused.value)
    assert len(str(refused.value)) <= LONGEST_MESSAGE

    def away(address: str) -> Any:
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")

    def cut(address: str) -> Any:
        files, found = filesystem_of(address)
        return Cut(files), found

    class Cut:
        """Gives the first bytes of a file, as a connection that breaks."""

        def __init__(self, files: Any) -> None:
            self.get_file_info = files.get_file_info

        def open_input_stream(self, *_: Any, **__: Any) -> Any:
            return io.BytesIO(whole[:9])

    for reached in (away, cut):
        monkeypatch.setattr(damaged_files, "filesystem_of", reached)
        with pytest.raises(OSError, match="thrift"):
            read_table(uri)
    monkeypatch.undo()
    path.write_bytes(whole)
    with (
        pytest.raises(OSError, match="no answer"),
        damaged_files.damage_named(uri, lambda: [path.relative_to(uri).as_posix()]),
    ):
        raise OSError("no answer")


@pytest.mark.parametrize("lost", ["emptied", "removed"])
def test_a_table_without_its_newest_commit_is_no_earlier_table(uri: str, lost: str) -> None:
    newest = max(Path(uri, "_delta_log").glob("*.json"))
    if lost == "emptied":
        newest.write_bytes(b"")
    else:
        newest.unlink()
    for read in (
        lambda: read_table(uri),
        lambda: upsert(_table(1, 9.0), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY),
    ):
        with pytest.raises(DataError, match=r"lost|damaged"):
            read()
    for commit in Path(uri, "_delta_log").glob("*.json"):
        commit.unlink()
    with pytest.raises(DataError, match="its writer reported 3"):
        table_exists(uri)


def test_a_seal_goes_with_its_table_and_a_table_without_one_is_read(uri: str) -> None:
    rows = _rows(uri)
    Path(uri, NAME).unlink()
    Path(uri, MARK).unlink()
    assert _rows(uri) == rows
    upsert(_table(6, 3.0), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY)
    assert Path(uri, NAME).exists()
    Path(uri).rename(f"{uri}-away")
    assert not table_exists(uri)


def test_a_table_whose_seal_is_lost_is_neither_read_nor_sealed_again(uri: str) -> None:
    max(Path(uri, "_delta_log").glob("*.json")).unlink()
    Path(uri, NAME).unlink()
    for use in (
        lambda: read_table(uri),
        lambda: upsert(_table(1, 9.0), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY),
        lambda: seal_table(uri),
    ):
        with pytest.raises(DataError, match=rf"{NAME} is lost.*remove it and {MARK}"):
            use()


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("damage", ["lost", "cut", "named"])
def test_a_lost_damaged_or_misnamed_checkpoint_is_refused_by_table_and_remedy(
    uri: str, damage: str, older: bool, sealed: bool
) -> None:
    log = Path(uri, "_delta_log")
    DeltaTable(uri).create_checkpoint()
    if older:
        for commit in sorted(log.glob("*.json"))[:-1]:
            commit.unlink()
    seal_table(uri, anew=True)
    rows = _rows(uri)
    checkpoint, named = next(log.glob("*.checkpoint.parquet")), log / "_last_checkpoint"
    if not sealed:
        Path(uri, NAME).unlink()
        Path(uri, MARK).unlink()
    if damage == "lost":
        checkpoint.unlink()
    elif damage == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    else:
        named.write_text('{"version":99,"size":1}')
    with pytest.raises(DataError, match=r"table .*(Bring it back from a copy|Remove this file)") as refused:
        _rows(uri)
    assert len(str(refused.value)) <= 300
    if damage == "named" or (damage == "lost" and not older and not sealed):
        named.unlink()
        assert _rows(uri) == rows, "the remedy helps"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": "x"}', '{"version": 1}'])
def test_what_readers_do_not_follow_is_no_damage(uri: str, text: str) -> None:
    DeltaTable(uri).create_checkpoint()
    Path(uri, "_delta_log", "_last_checkpoint").write_text(text)
    assert check_log(uri)
    assert _rows(uri)


def test_an_input_is_what_its_maker_reported(planted: Any) -> None:
    given = planted.handoffs["sequences"]
    assert input_table(planted.settings, planted.request("train", inputs={"sequences": given}), "sequences").num_rows
    other = replace(given, rows=given.rows + 1)
    request = planted.request("train", inputs={"sequences": other})
    with pytest.raises(DataError, match=rf"has {given.rows:,} rows for .*its maker reported {other.rows:,}"):
        input_table(planted.settings, request, "sequences")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    model = Popularity(PopularitySettings(), small_catalogue())
    model.fit_counts(small_histories())
    return save_bundle(tmp_path / "bundle", model, {"run_identity": "x"})


def _content(folder: Path) -> Any:
    loaded = load_bundle(folder)
    weights = {name: tensor.tolist() for name, tensor in loaded.recommender.trained_state().items()}
    return vars(loaded.catalogue)["texts"], loaded.settings, dict(loaded.provenance), str(weights)


def test_a_flipped_bit_of_a_bundle_is_refused(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {"recipe.json", "weights.safetensors", "catalogue.parquet", SEAL}
    for path in sorted(bundle.iterdir()):
        found = sweep(path, lambda: _content(bundle), 15)
        assert found == {"refused": 15}, path.name
    for name in ("weights.safetensors", SEAL):
        kept = (bundle / name).read_bytes()
        (bundle / name).unlink()
        with pytest.raises(DataError, match=f"{name} is missing"):
            load_bundle(bundle)
        (bundle / name).write_bytes(kept)
    assert load_bundle(bundle)


def test_a_stored_tokenizer_is_refused_when_it_is_damaged(tmp_path: Path) -> None:
    one = stored.StoredTokenizer(
        recipe="itemindex", settings=ItemIndexSettings(), encoder="e", quantised_levels=1, quantiser=None
    )
    stored.save(str(tmp_path), one)
    for path in sorted(tmp_path.iterdir()):
        assert sweep(path, lambda: stored.load(str(tmp_path)), 15) == {"refused": 15}, path.name


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("1")
    seal_folder(tmp_path)
    digests.forget()
    read: list[str] = []
    real = digests.digest_of_content
    monkeypatch.setattr(
        digests, "digest_of_content", lambda files, path, start: read.append(path) or real(files, path, start)
    )
    for _ in range(3):
        check_folder(tmp_path, "make it again")
    assert len(read) == 1
    (tmp_path / "a").write_text("22")
    with pytest.raises(DataError, match="a is damaged; make it again"):
        check_folder(tmp_path, "make it again")
