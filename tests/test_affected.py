"""What `make affected` runs."""

from tests.affected import affected_tests


def test_a_recipe_affects_its_own_tests_and_not_those_of_spark():
    found = affected_tests(["ray_jobs/recipes/tokenizers/fsq.py"])
    assert {"tests/ray_jobs/recipes/tokenizers/test_quantisers.py", "tests/chain/test_chain.py"} <= set(found)
    assert not [path for path in found if path.startswith(("tests/pipelines", "tests/infra", "tests/dags"))]


def test_a_contract_affects_both_engines_and_a_page_of_the_manual_its_own_test():
    found = set(affected_tests(["schemas/handoff.py"]))
    assert {
        "tests/pipelines/test_ingest.py",
        "tests/ray_jobs/data/test_tables.py",
        "tests/dags/test_request.py",
    } <= found
    assert affected_tests(["README.md"]) == affected_tests(["infra/README.md"]) == ["tests/infra/test_pages.py"]


def test_what_tests_share_affects_those_that_use_it():
    assert "tests/ray_jobs/training/test_training.py" in affected_tests(["tests/ray_jobs/small_world.py"])
    assert affected_tests(["tests/dags/conftest.py"]) == affected_tests(["tests/dags/conftest.py", "LICENSE"])
    assert all(path.startswith("tests/dags/") for path in affected_tests(["tests/dags/conftest.py"]))


def test_what_is_started_by_name_or_is_no_module_affects_those_who_start_it_or_read_it():
    assert "tests/test_entry_points.py" in affected_tests(["pipelines/stages/ingest.py"])
    assert "tests/pipelines/test_launch.py" in affected_tests(["pipelines/stages/ingest.py"])
    assert "tests/pipelines/test_driver.py" in affected_tests(["pipelines/launch/driver.py"])
    assert "tests/infra/test_settings.py" in affected_tests(["infra/profiles/local.toml"])
    assert "tests/infra/test_pages.py" in affected_tests(["ray_jobs/recipes/sequential/settings.py"])


def test_a_module_that_is_gone_affects_every_test():
    assert affected_tests(["pipelines/was_here.py"]) == affected_tests(["constraints.txt"])


def test_a_pin_affects_every_test():
    everything = affected_tests(["constraints.txt"])
    assert {"tests/test_affected.py", "tests/schemas/test_contracts.py"} <= set(everything)
    assert not [path for path in everything if "nightly" in path]
