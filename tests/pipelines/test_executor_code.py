import subprocess
import sys
import zipfile
from types import SimpleNamespace

from pipelines.executor_code import code_archive, send_code


def test_the_archive_has_the_code_and_a_name_of_its_content(tmp_path):
    made = code_archive(tmp_path)
    names = zipfile.ZipFile(made).namelist()
    assert "pipelines/sequences.py" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("dags", "ray_jobs", "tests"))]
    before = made.stat().st_mtime_ns
    assert code_archive(tmp_path) == made
    assert made.stat().st_mtime_ns == before


def test_code_is_imported_from_the_archive(tmp_path):
    code = "import sys; sys.path.insert(1, sys.argv[1]); import pipelines.reviews as found; print(found.__file__)"
    made = str(code_archive(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, made], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stdout.strip() == f"{made}/pipelines/reviews.py", done.stderr


def test_executors_of_this_process_are_sent_nothing(tmp_path):
    sent = []
    for master in ("local[2]", "spark://head:7077", "k8s://https://api"):
        context = SimpleNamespace(master=master, addPyFile=sent.append)
        send_code(SimpleNamespace(sparkContext=context), tmp_path)
    assert len(sent) == 2
    assert set(sent) == {str(code_archive(tmp_path / "spark_code"))}
