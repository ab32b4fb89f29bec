"""The local Airflow looks for work rarely while there is none, and often while there is some."""

from types import SimpleNamespace

from airflow.cli.commands import dag_processor_command, scheduler_command

from dags import dag_processor, scheduler


def test_the_scheduler_looks_more_often_while_a_run_is_active(monkeypatch):
    plain = scheduler_command.SchedulerJobRunner
    monkeypatch.setattr(scheduler_command, "SchedulerJobRunner", plain)
    monkeypatch.setattr(plain, "_schedule_all_dag_runs", lambda self, guard, dag_runs, session: [*dag_runs, session])
    runner = scheduler.patient_scheduler()(job=SimpleNamespace(job_type=None))
    assert runner._scheduler_idle_sleep_time, "the name of what the loop sleeps"
    assert runner._schedule_all_dag_runs(None, ["run"], "session") == ["run", "session"]
    assert runner._scheduler_idle_sleep_time == scheduler.BUSY_S
    runner._schedule_all_dag_runs(None, [], "session")
    assert runner._scheduler_idle_sleep_time == scheduler.IDLE_S
    assert isinstance(scheduler_command.SchedulerJobRunner(job=SimpleNamespace(job_type=None)), type(runner))


def test_the_dag_processor_waits_longer_while_it_parses_nothing(monkeypatch):
    monkeypatch.setattr(dag_processor_command, "DagFileProcessorManager", dag_processor_command.DagFileProcessorManager)
    dag_processor.patient_processor()
    arguments = SimpleNamespace(bundle_name=None, num_runs=1)
    manager = dag_processor_command._create_dag_processor_job_runner(arguments).processor
    waited = []
    manager.selector = SimpleNamespace(select=lambda timeout: waited.append(timeout) or [])
    manager._service_processor_sockets(timeout=0.3)
    manager._file_queue["a file that waits"] = None
    manager._service_processor_sockets(timeout=0.2)
    manager._file_queue.clear()
    manager._processors["a file that is parsed"] = None
    manager._service_processor_sockets(timeout=0.1)
    assert waited == [dag_processor.IDLE_S, 0.2, 0.1]
