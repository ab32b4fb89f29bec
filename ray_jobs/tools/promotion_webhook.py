"""Have MLflow notify an address when a version is registered, and when an alias such as `champion` moves.

penchant webhook --url https://hooks.example.org/penchant

MLflow's server sends a JSON document by POST, with retries. With a secret in PENCHANT_WEBHOOK_SECRET each is signed
(header `X-MLflow-Signature`: ``v1,`` and the base64 of the HMAC-SHA256 of ``<delivery id>.<timestamp>.<body>``). A name
is registered once and then updated. With a secret, the server needs MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY to read it
after a restart (the local services set it). It accepts only https and public addresses, unless
MLFLOW_WEBHOOK_ALLOWED_SCHEMES and MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS allow others. It notifies about every model in the
registry: look at `data.name`.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infra.commands.terminal import command
from infra.errors import SettingError
from infra.settings import Settings, load_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook

NAME = "penchant-promotions"
EVENTS = ("model_version.created", "model_version_alias.created", "model_version_alias.deleted")
SECRET_VARIABLE = "PENCHANT_WEBHOOK_SECRET"
_DESCRIPTION = "Registered versions and moved aliases, made by ray_jobs.tools.promotion_webhook"


def ensure(settings: Settings, name: str, url: str, secret: str = "") -> "Webhook":
    """Register the webhook, or update the one of that name; without `secret` an earlier one stays.

    Raises:
        SettingError: there is no server, or it refuses the address, with its reason.
    """
    client = _client(settings)
    from mlflow.exceptions import MlflowException

    found = next((hook for hook in _all(client) if hook.name == name), None)
    values: dict[str, Any] = {"name": name, "url": url, "events": list(EVENTS), "secret": secret or None}
    values["description"] = _DESCRIPTION
    try:
        if found is None:
            return client.create_webhook(**values, status="ACTIVE")
        return client.update_webhook(found.webhook_id, **values, status="ACTIVE")
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise SettingError(f"MLflow refuses the webhook: {error.message}") from error


def remove(settings: Settings, name: str) -> int:
    """Remove the webhook of that name; returns how many there were."""
    client = _client(settings)
    mine = [hook for hook in _all(client) if hook.name == name]
    for hook in mine:
        client.delete_webhook(hook.webhook_id)
    return len(mine)


def _client(settings: Settings) -> "MlflowClient":
    if not settings.mlflow.tracking_uri.startswith(("http://", "https://")):
        raise SettingError(
            f"webhooks are sent by MLflow's server, and mlflow.tracking_uri={settings.mlflow.tracking_uri} is none"
        )
    from ray_jobs.registry import runs

    return runs.connect(settings)


def _all(client: "MlflowClient") -> "Iterator[Webhook]":
    token = None
    while True:
        page = client.list_webhooks(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; the exit status is 2, with one message, if the server or the receiver refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="address that receives the events")
    parser.add_argument("--name", default=NAME, help="name of the webhook; another one for another receiver")
    parser.add_argument("--remove", action="store_true", help="remove it instead")
    given = parser.parse_args(argv)
    if bool(given.url) == given.remove:
        parser.error("give --url, or --remove")
    settings = load_settings()
    if given.remove:
        sys.stdout.write(f"{remove(settings, given.name)} removed\n")
        return
    hook = ensure(settings, given.name, given.url, os.environ.get(SECRET_VARIABLE, ""))
    tried = _client(settings).test_webhook(hook.webhook_id)
    if not tried.success:
        answer = tried.error_message or f"it answered {tried.response_status}: {tried.response_body}"
        raise SettingError(f"the webhook is registered, and a test message did not arrive: {answer}")
    sys.stdout.write(f"{hook.name} is registered and took a test message; its events are {', '.join(EVENTS)}\n")


if __name__ == "__main__":
    main()
