"""The home folder: nobody else's to read, and itself wherever it is moved or copied to.

Reviews, databases, logs and keys lie in it, so it is its owner's alone. A note in it says where it lies. Where that is
not where it is, it was moved or copied: what names processes and places of the old one is dropped, and addresses that
were recorded there are read as the same places here, so that a copy never touches what it was copied from.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.errors import DamagedFile, SettingError
from infra.state import PRIVATE_FOLDER, read_json, write_json

NOTE = "home.json"
USER = "penchant"
"""Who asks the local Airflow and MLflow, with the password of the home folder."""
LOGIN_NAME = "MLFLOW_TRACKING_USERNAME"
OF_ANOTHER_PLACE = ("services.json", "spark_drivers")
"""What names processes, and is made again."""


def settle(home: Path) -> None:
    """Make `home` private, and its own where it was moved or copied.

    Raises:
        SettingError: it belongs to somebody else.
        DamagedFile: its note cannot be read.
    """
    home.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    close(home)
    here = str(home.resolve())
    names = list(dict.fromkeys([os.path.abspath(home), here]))  # by a link, addresses are recorded with its name
    places = _places(home)
    if places[-len(names) :] == names:
        return
    if places and places[-1] != here:
        for name in OF_ANOTHER_PLACE:
            _drop(home / name)
    write_json(home / NOTE, {"places": [*(place for place in places if place not in names), *names]})


def keep_private(home: Path) -> None:
    """Make `home` its owner's alone, whichever command comes first; a volume that others may write to is shared."""
    with suppress(OSError):
        home.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        found = home.stat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o022:
            close(home)


def close(folder: Path) -> None:
    """Take a folder's permissions from all but its owner.

    Raises:
        SettingError: it belongs to somebody else.
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
    """Variables with which MLflow's client asks the local server of `home`; none for another server.

    Who has the variables of somebody else set keeps them.
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
    """Where the home has been, the newest last.

    Raises:
        DamagedFile: nobody else knows it.
    """
    try:
        return read_json(
            home / NOTE,
            "put a copy back, or remove it if the home was never moved or copied; else addresses of the old place stay",
            _paths,
        )
    except FileNotFoundError:
        return []


def _paths(raw: Any) -> list[str]:
    places = raw["places"]
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise TypeError("places is no list of paths")
    return places


def _drop(path: Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            _drop(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def here(address: str, home: str) -> str:
    """A recorded path or address in a place where `home` was before, as the one in `home`; any other as it is.

    Raises:
        DamagedFile: the note of those places cannot be read.
    """
    root = home.rstrip("/")
    if not address.startswith("/") or _is_in(address, root):
        return address
    # One place may lie in another.
    for place in sorted(_places(Path(root)), key=len, reverse=True):
        if place and _is_in(address, place):
            return root + address[len(place) :]
    return address


def _is_in(address: str, place: str) -> bool:
    return address == place or address.startswith(f"{place}/")


def socket_folder(home: Path) -> Path:
    """A folder with a short path for the sockets of this home: its owner's alone, under a name that nobody can guess.

    It is made again where the system has removed it, or the home was moved.
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
