import great_expectations.expectations as expectations
import pyarrow as pa
import pytest

from schemas.table import Column, Table
from schemas.tables import TABLES


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_a_contract_is_whole(table):
    names = table.column_names()
    assert len(set(names)) == len(names)
    assert set(table.key) <= set(names)
    assert set(table.partition_by) <= set(names)
    assert table.description
    assert all(column.description for column in table.columns)
    for column in (*table.key, *table.partition_by):
        assert not next(c for c in table.columns if c.name == column).nullable


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_checks_name_real_expectations_and_columns(table):
    for check in table.checks:
        assert check.reason
        expectation = getattr(expectations, check.expectation)(**check.arguments)
        assert getattr(expectation, "column", table.key[0]) in table.column_names()


def test_the_schema_hash_sees_name_type_and_nullability():
    def table(**change):
        column = Column(**({"name": "a", "type": pa.string(), "description": "d"} | change))
        return Table(name="t", description="d", columns=(column,), key=("a",), partition_by=())

    hashes = {table(**c).schema_hash() for c in ({}, {"name": "b"}, {"type": pa.int32()}, {"nullable": True})}
    assert len(hashes) == 4
    assert table(description="other").schema_hash() == table().schema_hash()
