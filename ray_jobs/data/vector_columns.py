"""Vectors as columns of Arrow tables, and back."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float32]


def matrix(column: pa.ChunkedArray | pa.Array) -> Floats:
    """A column of B lists of D floats as float32[B, D]."""
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = flat.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return values.reshape(len(flat), len(values) // max(1, len(flat)))


def lists(vectors: Floats) -> pa.Array:
    """The inverse of `matrix`: a column of B lists of D floats from float32[B, D]."""
    rows, width = vectors.shape
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * width, pa.int32()), flat)
