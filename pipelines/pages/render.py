"""Render pages from templates."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infra import storage

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(address: str, template: str, **values: Any) -> None:
    """Render `template` of this folder with `values` to `address`, atomically."""
    storage.write(address, _PAGES.get_template(template).render(**values).encode())
