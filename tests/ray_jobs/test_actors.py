import os

import pyarrow as pa
import pytest

from ray_jobs.actors import through


def test_every_table_comes_back_once_though_an_actor_dies(ray_session, tmp_path):
    died = tmp_path / "died"

    class Doubler:
        """Doubles numbers; dies once, at the number that it was told, if the file that says so is not there yet."""

        def __init__(self, dies_at, died):
            self.dies_at, self.died = dies_at, died

        def __call__(self, table):
            numbers = table["n"].to_pylist()
            if self.dies_at in numbers and not self.died.exists():
                self.died.touch()
                os._exit(1)
            if -1 in numbers:
                raise ArithmeticError("-1 cannot be doubled")
            return pa.table({"n": [2 * n for n in numbers]})

    given = (pa.table({"n": [2 * n, 2 * n + 1]}) for n in range(10))
    found = [n for part in through(Doubler, (7, died), given, copies=2, cpus=0.1) for n in part["n"].to_pylist()]
    assert died.exists()
    assert sorted(found) == [2 * n for n in range(20)]
    with pytest.raises(ArithmeticError, match="-1 cannot be doubled"):
        list(through(Doubler, (None, died), [pa.table({"n": [-1]})], copies=1, cpus=0.1))
