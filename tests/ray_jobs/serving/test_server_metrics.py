import json

from prometheus_client.parser import text_string_to_metric_families

from ray_jobs.serving.metrics import FORGET_S, REPLICA_COUNTERS, REPLICA_GAUGES, ServerMetrics

NUMBERS = dict.fromkeys((*REPLICA_GAUGES, *REPLICA_COUNTERS), 1.5)


def samples(text):
    families = text_string_to_metric_families(text.decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_labels_are_of_few_values_whatever_is_asked():
    metrics = ServerMetrics()
    for path in ("/recommend", "/recommend/", *(f"/users/{n}" for n in range(100))):
        with metrics.request(path) as told:
            told.status = 200
    found = samples(metrics.text())
    assert found["penchant_serving_requests_total", "/recommend", "200"] == 2
    assert found["penchant_serving_requests_total", "other", "200"] == 100
    assert found["penchant_serving_request_seconds_count", "/recommend"] == 2
    assert found[("penchant_serving_requests_in_progress",)] == 0


def test_replicas_are_told_apart_and_forgotten(monkeypatch):
    metrics = ServerMetrics()
    for replica, version in (("a", "m/1"), ("b", "m/2"), ("b", "m/3")):
        metrics.hear(json.dumps({"replica": replica, "model_version": version, **NUMBERS}).encode())
    for noise in (b"", b"[]", b"null", b'{"replica": "c"}', json.dumps({"replica": "d", **NUMBERS}).encode()):
        metrics.hear(noise)
    found = samples(metrics.text())
    assert found["penchant_serving_batches_total", "a"] == found["penchant_serving_jobs_waiting", "b"] == 1.5
    assert {key[1:] for key in found if key[0] == "penchant_serving_model_info"} == {("m/1", "a"), ("m/3", "b")}
    from ray_jobs.serving import metrics as module

    later = module.time.monotonic() + FORGET_S + 1
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert not {key for key in samples(metrics.text()) if key[0] == "penchant_serving_model_info"}
