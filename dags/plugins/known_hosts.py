"""Airflow's pages answer to the names in ``ALLOWED_HOSTS`` only; Airflow has no list of its own.

A web page can point a name of its own at this machine and then ask as if it were Airflow's (DNS rebinding). Its
requests carry that name.
"""

import os

from airflow.plugins_manager import AirflowPlugin
from starlette.middleware.trustedhost import TrustedHostMiddleware


class KnownHosts(AirflowPlugin):
    """The middleware that looks at the header ``Host``; without the variable every name is taken."""

    name = "known_hosts"
    fastapi_root_middlewares = [  # noqa: RUF012  (Airflow's own declaration)
        {
            "name": "known hosts",
            "middleware": TrustedHostMiddleware,
            "kwargs": {"allowed_hosts": os.environ.get("ALLOWED_HOSTS", "*").split(","), "www_redirect": False},
        }
    ]
