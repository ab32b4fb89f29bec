"""Restricts Airflow's pages to the host names in ``ALLOWED_HOSTS``, against DNS rebinding."""

import os

from airflow.plugins_manager import AirflowPlugin
from starlette.middleware.trustedhost import TrustedHostMiddleware


class KnownHosts(AirflowPlugin):
    """Middleware that checks the header ``Host``; without the variable every name is allowed."""

    name = "known_hosts"
    fastapi_root_middlewares = [  # noqa: RUF012  (Airflow's own declaration)
        {
            "name": "known hosts",
            "middleware": TrustedHostMiddleware,
            "kwargs": {"allowed_hosts": os.environ.get("ALLOWED_HOSTS", "*").split(","), "www_redirect": False},
        }
    ]
