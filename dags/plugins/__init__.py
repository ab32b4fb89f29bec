"""Plugins of Airflow's services; see `infra.local_environment`."""
