"""The seal of an artifact folder: a file with the digests of the others, checked before they are read.

Bundles, tokenizers, adapters, base models and training states are sealed. A seal contains a digest of itself, so that a
damaged seal is not mistaken for damaged files.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs

from infra.state import read_json, write_text
from schemas.digests import changed, digest, digest_of_content
from schemas.errors import DataError

SEAL = "seal.json"
FORMAT = 1
"""Of the descriptions of bundles and tokenizers."""
_OWN = "digest"


def seal_text(content: dict[str, Any], indent: int | None = None) -> str:
    """`content` as JSON with a digest of itself."""
    return json.dumps({**content, _OWN: digest(_canonical(content))}, indent=indent)


def read_seal_text(text: str, where: str, remedy: str, *, required: bool = True) -> dict[str, Any]:
    """The inverse of `seal_text`.

    Args:
        required: refuse a text without a digest; earlier releases wrote some.

    Raises:
        DataError: the text is damaged.
    """
    try:
        content = json.loads(text)
        if not required and _OWN not in content:
            return dict(content)
        own = content.pop(_OWN)
    except (ValueError, KeyError, TypeError, AttributeError):
        own, content = None, {}
    if own is None or own != digest(_canonical(content)):
        raise DataError(f"{where} is damaged; {remedy}")
    return dict(content)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def seal_folder(folder: Path, last: tuple[str, str] | None = None) -> None:
    """Seal the files in `folder`.

    Args:
        last: name and text of the file that completes the artifact; it is sealed first and then written.
    """
    name, text = last or ("", "")
    (folder / SEAL).unlink(missing_ok=True)
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != name and ".tmp" not in p.suffixes)
    found = {one: digest_of_content(fs.LocalFileSystem(), str(folder / one)) for one in names}
    if last:
        found[name] = digest(text.encode())
    write_text(folder / SEAL, seal_text({"files": found}))
    if last:
        write_text(folder / name, text)


def check_folder(folder: Path, remedy: str, *, required: bool = False, only: Collection[str] = ()) -> None:
    """Check the files of an artifact against its seal; artifacts of earlier releases may have none.

    Args:
        remedy: how to get the artifact again, for the message.
        required: refuse an artifact without a seal.
        only: names of the files to check; all if empty.

    Raises:
        DataError: a file or the seal is damaged or missing.
    """
    try:
        text = (folder / SEAL).read_text()
    except FileNotFoundError:
        if required:
            raise DataError(f"{folder / SEAL} is missing, so damage to other files cannot be seen; {remedy}") from None
        return
    except UnicodeDecodeError:
        text = ""
    sealed = read_seal_text(text, str(folder / SEAL), remedy)["files"]
    wanted = {name: sealed[name] for name in sealed if not only or name in only}
    for name in changed(fs.LocalFileSystem(), str(folder), wanted):
        state = "is damaged" if (folder / name).exists() else "is missing"
        raise DataError(f"{folder / name} {state}; {remedy}")


def write_description(path: Path, content: Mapping[str, Any]) -> None:
    """Seal the folder of `path` with this description, which completes the artifact."""
    text = json.dumps({"format": FORMAT, **content, "sealed": True}, indent=1, sort_keys=True)
    seal_folder(path.parent, (path.name, text))


def read_description(path: Path, remedy: str, anew: str) -> dict[str, Any]:
    """The description of an artifact, whose files are checked first.

    Args:
        remedy: how to get the artifact again, for messages about damage.
        anew: how to make it anew.

    Raises:
        DataError: the artifact is damaged, or has another format.
    """
    check_folder(path.parent, remedy)
    content = read_json(path, anew, dict)
    if content.get("sealed"):
        check_folder(path.parent, remedy, required=True)
    if content["format"] != FORMAT:
        raise DataError(f"{path.parent} has the format {content['format']}, this code reads {FORMAT}; {anew}")
    return content
