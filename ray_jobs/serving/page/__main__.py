"""A page on which lists follow words: `penchant page`, then http://127.0.0.1:8090/ in a browser.

Choose a user or a history, say what is wanted, and compare the lists before and after, with reasons. The lists come
from the registered champions: a model is loaded at its first request and replaced when the alias moves. The server
takes some 40 MB, about a gigabyte once a model is loaded, and no processor time between requests.
`POST /recommend` answers as `penchant serve` does. Runs until it is interrupted.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from infra.commands.terminal import command
from infra.doctor import port_is_free
from infra.errors import SettingError
from infra.settings import load_settings
from ray_jobs.serving.flags import overrides, parser_for
from ray_jobs.serving.page.settings import SECTION, PageSettings
from schemas.sections import stage_settings


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with status 2 for a wrong setting or a busy port."""
    given = vars(parser_for(PageSettings, __doc__).parse_args(argv))
    settings = load_settings()
    chosen = stage_settings(PageSettings, settings, overrides(PageSettings, given))
    if not port_is_free(chosen.port):
        raise SettingError(f"{SECTION}.port {chosen.port} is busy: stop what listens there, or choose another")
    from ray_jobs.serving.page.server import PageServer

    # The next request retries a registry that is down; MLflow's own retries take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    server = PageServer(settings, chosen)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    sys.stdout.write(f"the page is at http://127.0.0.1:{server.server_port}/\n")
    sys.stdout.flush()
    # Requests wake the loop at once; the interval only limits how soon a signal ends it.
    server.serve_forever(poll_interval=1.0)
    server.server_close()


if __name__ == "__main__":
    main()
