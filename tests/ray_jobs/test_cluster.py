"""The actor that Ray leaves behind ends with the last process that is connected, and never under another one."""

import pytest
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator

from ray_jobs.cluster import COORDINATOR, Connection


def test_the_last_to_leave_ends_the_coordinator(ray_session, tmp_path):
    first, second = (Connection(tmp_path / "connections.lock") for _ in range(2))
    coordinator = get_or_create_autoscaling_coordinator()
    first.close()
    assert ray_session.get(coordinator.get_reserved_resources.remote("train"), timeout=30) == {}
    second.close()
    with pytest.raises(ValueError, match=COORDINATOR):
        ray_session.get_actor(COORDINATOR, namespace=COORDINATOR)

    third = Connection(tmp_path / "connections.lock")
    anew = get_or_create_autoscaling_coordinator()
    assert ray_session.get(anew.get_reserved_resources.remote("train"), timeout=30) == {}
    third.close()


def test_nothing_to_end_is_no_error(ray_session, tmp_path):
    for _ in range(2):
        Connection(tmp_path / "connections.lock").close()
