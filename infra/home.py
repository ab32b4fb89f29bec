"""The home folder: private to its owner, and usable after it was moved or copied.

It has reviews, databases, logs and keys, so only its owner can read it. A file in it records its path. If that differs
from the actual path, the folder was moved or copied: records of processes are deleted, and recorded paths are
translated to the new place, so that a copy never touches the original.
"""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.errors import DamagedFile, SettingError
from infra.state import PRIVATE_FOLDER, read_json, write_json

NOTE = "home.json"
USER = "penchant"
"""User of the local Airflow and MLflow; the password is in the home folder."""
LOGIN_NAME = "MLFLOW_TRACKING_USERNAME"
OF_ANOTHER_PLACE = ("services.json", "spark_drivers")
"""Records of processes; they are written again."""


def settle(home: Path) -> None:
    """Make `home` private, and record its path if it is new, moved or copied.

    Raises:
        SettingError: it belongs to another user.
        DamagedFile: its record of paths cannot be read.
    """
    home.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    close(home)
    here = str(home.resolve())
    names = list(dict.fromkeys([os.path.abspath(home), here]))  # paths may have been recorded through a link
    places = _places(home)
    if places[-len(names) :] == names:
        return
    if places and places[-1] != here:
        for name in OF_ANOTHER_PLACE:
            path = home / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_json(home / NOTE, {"places": [*(place for place in places if place not in names), *names]})


def keep_private(home: Path) -> None:
    """Make `home` private, unless it is a shared volume that others may write to."""
    with suppress(OSError):
        home.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        found = home.stat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o022:
            close(home)


def close(folder: Path) -> None:
    """Remove everybody else's permissions for a folder.

    Raises:
        SettingError: it belongs to another user.
    """
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise SettingError(f"{folder} belongs to another user: use a home folder of your own (PENCHANT_HOME=<folder>)")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(stat.S_IMODE(found.st_mode) & 0o700)


def password_file(home: Path) -> Path:
    """File with the password of `USER`."""
    return home / "password"


def registry_login(home: Path, tracking_uri: str) -> dict[str, str]:
    """Variables that log MLflow's client in to the local server of `home`.

    Empty for another server, or if the environment has another login.
    """
    if not tracking_uri.startswith(("http://127.0.0.1:", "http://localhost:")):
        return {}
    if "MLFLOW_TRACKING_TOKEN" in os.environ or os.environ.get(LOGIN_NAME, USER) != USER:
        return {}
    try:
        return {LOGIN_NAME: USER, "MLFLOW_TRACKING_PASSWORD": password_file(home).read_text(encoding="utf-8").strip()}
    except (OSError, UnicodeDecodeError):
        return {}


def _places(home: Path) -> list[str]:
    """Paths that the home has had, the newest last.

    Raises:
        DamagedFile: the record cannot be read.
    """
    try:
        return read_json(
            home / NOTE,
            "restore it from a copy, or delete it if the home was never moved or copied; else recorded paths stay old",
            _paths,
        )
    except FileNotFoundError:
        return []


def _paths(raw: Any) -> list[str]:
    places = raw["places"]
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise TypeError("places is not a list of paths")
    return places


def here(address: str, home: str) -> str:
    """Translate a recorded path below a former path of `home`; other addresses are returned unchanged.

    Raises:
        DamagedFile: the record of paths cannot be read.
    """
    root = home.rstrip("/")
    if not address.startswith("/") or _is_in(address, root):
        return address
    # The longest first, because one place may be below another.
    for place in sorted(_places(Path(root)), key=len, reverse=True):
        if place and _is_in(address, place):
            return root + address[len(place) :]
    return address


def _is_in(address: str, place: str) -> bool:
    return address == place or address.startswith(f"{place}/")


def socket_folder(home: Path) -> Path:
    """A private folder with a short, random path for the sockets of this home.

    It is created again if the system has removed it or the home was moved.
    """
    note, place = home / "sockets.json", str(home.resolve())
    try:
        kept = read_json(note, "", lambda raw: Path(raw["folder"]) if raw["home"] == place else None)
    except (FileNotFoundError, DamagedFile):
        kept = None
    if kept is not None and _is_ours_alone(kept):
        return kept
    made = Path(tempfile.mkdtemp(prefix="penchant-"))
    write_json(note, {"home": place, "folder": str(made)})
    return made


def _is_ours_alone(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
