"""Every table of the warehouse, by name. Each is declared in the module of its name."""

from importlib import import_module

from schemas.stages import TABLE_NAMES
from schemas.table import Table

TABLES: dict[str, Table] = {name: getattr(import_module(f"schemas.{name}"), name.upper()) for name in TABLE_NAMES}

RETIRED = ("evaluations",)
"""Tables of earlier releases, no longer used. They contain user ids, so an erasure deletes them completely."""
