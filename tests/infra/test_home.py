import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import DamagedFile, SettingError
from infra.home import USER, close, here, settle, socket_folder
from infra.local_environment import Ports, local_environment, password
from infra.mlflow_server import mlflow_access, require_registry
from infra.services import Supervisor
from infra.settings import REPOSITORY, load_settings
from infra.state import write_json
from schemas.dataset import Dataset

SHOWS_PATHS = """
import json
from airflow.configuration import conf, write_default_airflow_configuration_if_needed
write_default_airflow_configuration_if_needed()
print("PATHS " + json.dumps(conf.as_dict(display_sensitive=True)))
"""


def settled(home):
    settle(home)
    local_environment(home, Ports())
    return home


@pytest.fixture
def copied(tmp_path):
    """A home and its copy, both there."""
    first = settled(tmp_path / "first")
    Dataset(name="shop", format="columns", reviews=f"{first}/landing/r.csv", items="/elsewhere/i.csv").save(
        str(first / "datasets")
    )
    write_json(first / "services.json", {"ray": {"pid": os.getpid(), "started": 1}})
    (first / "spark_drivers").mkdir()
    (first / "spark_drivers" / str(os.getpid())).touch()
    shutil.copytree(first, tmp_path / "second")
    return first, tmp_path / "second"


def test_a_home_is_nobody_elses_to_read(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    settle(home)
    assert home.stat().st_mode & 0o777 == 0o700
    environment = local_environment(home, Ports())
    kept = [home / name for name in ("ray_token", "mlflow_webhook_key", "password", "airflow/passwords.json")]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600] * 4
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(kept[0])
    with pytest.raises(SettingError, match="belongs to another user: use a home folder of your own"):
        close(Path("/proc/1") if os.getuid() else _of_somebody(tmp_path))


@pytest.mark.parametrize(("before", "after"), [(None, 0o700), (0o755, 0o700), (0o775, 0o775)])
def test_a_home_that_a_command_makes_is_private_too_and_a_shared_volume_stays_shared(
    tmp_path, monkeypatch, before, after
):
    home = tmp_path / "deep" / "home"
    if before is not None:
        home.mkdir(parents=True)
        home.chmod(before)
    monkeypatch.setenv("PENCHANT_HOME", str(home))
    load_settings()
    assert home.stat().st_mode & 0o777 == after


def _of_somebody(folder):
    path = folder / "theirs"
    path.mkdir()
    os.chown(path, 12345, 12345)
    return path


@pytest.mark.parametrize("name", ["ray_token", "mlflow_webhook_key", "password"])
def test_an_emptied_key_is_made_again(tmp_path, name):
    before = local_environment(tmp_path, Ports())
    (tmp_path / name).write_text("")
    after = local_environment(tmp_path, Ports())
    assert (tmp_path / name).read_text()
    assert json.loads((tmp_path / "airflow" / "passwords.json").read_text()) == {USER: password(tmp_path)}
    assert (before == after) == (name == "ray_token"), "its path stays, the others are in the environment"


def test_a_copy_reads_its_own_places_and_ends_no_process_of_the_first(copied):
    first, second = copied
    assert here(f"{first}/warehouse/shop/items", str(second)) == f"{second}/warehouse/shop/items"
    settle(second)
    assert not (second / "services.json").exists()
    assert not (second / "spark_drivers").exists()
    assert here(f"{first}/warehouse/shop/items", str(second)) == f"{second}/warehouse/shop/items"
    assert here(f"{first}x/items", str(second)) == f"{first}x/items"
    assert here(f"{second}/items", str(first)) == f"{second}/items"
    found = Dataset.load(str(second / "datasets"), "shop")
    assert (found.reviews, found.items) == (f"{second}/landing/r.csv", "/elsewhere/i.csv")
    assert Dataset.load(str(first / "datasets"), "shop").reviews == f"{first}/landing/r.csv"
    assert socket_folder(first) == socket_folder(first) != socket_folder(second)
    assert socket_folder(first).stat().st_mode & 0o777 == 0o700


def test_a_home_that_moved_into_its_old_place_is_at_the_new_one(tmp_path):
    settle(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "aside")
    home = tmp_path / "a" / "b"
    home.parent.mkdir()
    (tmp_path / "aside").rename(home)
    settle(home)
    assert here(f"{home}/w", str(home)) == here(f"{tmp_path}/a/w", str(home)) == f"{home}/w"
    home.rename(tmp_path / "c")
    settle(tmp_path / "c")
    assert here(f"{home}/w", str(tmp_path / "c")) == here(f"{tmp_path}/a/w", str(tmp_path / "c")) == f"{tmp_path}/c/w"


def test_a_copy_of_a_home_that_is_named_by_a_link_leaves_the_first_alone(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    settle(tmp_path / "real")
    write_json(tmp_path / "real" / "services.json", {})
    for _ in range(2):
        settle(tmp_path / "link")
    assert (tmp_path / "real" / "services.json").exists(), "it has not moved"
    shutil.copytree(tmp_path / "real", tmp_path / "copy")
    settle(tmp_path / "copy")
    for name in ("link", "real"):
        assert here(f"{tmp_path}/{name}/w", str(tmp_path / "copy")) == f"{tmp_path}/copy/w"


@pytest.mark.parametrize("note", ["", "{", "[]", '{"places": "x"}', '{"places": [1]}'])
def test_a_damaged_note_of_places_is_named_and_kept(tmp_path, note):
    (tmp_path / "home.json").write_text(note)
    for ask in (lambda: settle(tmp_path), lambda: here("/elsewhere/w", str(tmp_path))):
        with pytest.raises(DamagedFile, match=r"home\.json cannot be read .*restore it from a copy, or delete it"):
            ask()
    assert (tmp_path / "home.json").read_text() == note
    assert here(f"{tmp_path}/w", str(tmp_path)) == f"{tmp_path}/w"


def test_a_service_of_one_home_is_none_of_a_copy(copied):
    first, second = copied
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, "PENCHANT_HOME": str(first), "PENCHANT_SERVICE": "mlflow"},
        start_new_session=True,
    )
    try:
        (first / "services.json").write_text('{"mlflow": {"pid"')
        found = Supervisor(first, Ports()).running()
        assert found == {"mlflow": sleeper.pid}, "made again from the processes there are"
        (first / "services.json").unlink()
        assert Supervisor(first, Ports()).running() == found
        shutil.copy(first / "services.json", second / "services.json")
        assert Supervisor(second, Ports()).running() == {}
        (second / "services.json").write_bytes(b"\0")
        assert Supervisor(second, Ports()).running() == {}
        Supervisor(second, Ports()).down(say=lambda _: None)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.nightly  # Airflow itself, twice
def test_airflow_of_a_copied_home_knows_no_path_of_the_first(copied):
    first, second = copied

    def paths(home):
        environment = local_environment(home, Ports())
        code = [sys.executable, "-c", SHOWS_PATHS]
        done = subprocess.run(code, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return next(line for line in done.stdout.splitlines() if line.startswith("PATHS "))

    assert str(first) in paths(first)
    assert (first / "airflow" / "airflow.cfg").exists()
    shutil.copytree(first, second, dirs_exist_ok=True)
    found = paths(second)
    assert str(second) in found
    assert str(first) not in found


def test_a_lost_registry_is_no_empty_registry(tmp_path):
    require_registry(tmp_path)
    model = tmp_path / "mlflow" / "artifacts" / "1" / "model"
    model.mkdir(parents=True)
    require_registry(tmp_path)
    (model / "recipe.json").write_text("{}")
    database = tmp_path / "mlflow" / "mlflow.db"
    for content in (None, b"", b"SQLite format 3\0" + b"\0" * 200):
        if content is not None:
            database.write_bytes(content)
        with pytest.raises(
            SettingError, match=r"mlflow\.db cannot be read .*restore the database from a copy, or move"
        ):
            require_registry(tmp_path)


def test_the_users_of_mlflow_are_made_anew_and_the_password_is_in_no_file_of_its(tmp_path):
    environment = mlflow_access(tmp_path)
    (tmp_path / "mlflow" / "users.db").touch()
    assert mlflow_access(tmp_path)["MLFLOW_AUTH_ADMIN_PASSWORD"] == environment["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert not (tmp_path / "mlflow" / "users.db").exists()
    assert environment["MLFLOW_AUTH_ADMIN_PASSWORD"] not in (tmp_path / "mlflow" / "access.ini").read_text()
