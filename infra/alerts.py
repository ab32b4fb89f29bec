"""Alerts about runs, delivered to a webhook and by e-mail."""

import json
import smtplib
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.client import HTTPException
from typing import Any

from infra.masks import masked
from infra.settings import AlertSettings


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One message.

    Args:
        event: ``run_failed`` or ``run_late``.
        subject: one line.
        text: the message.
        facts: the same for programs; JSON values.
    """

    event: str
    subject: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def deliver(alert: Alert, settings: AlertSettings) -> list[str]:
    """Send `alert` to the receivers in `settings`.

    Returns:
        One sentence for each receiver that was not reached; nothing is raised for them.
    """
    problems = []
    for wanted, receiver, send in (
        (settings.webhook_url, f"the webhook {_host(settings.webhook_url)}", _post),
        (settings.email_to, f"the mail server {settings.smtp_host}:{settings.smtp_port}", _mail),
    ):
        if wanted:
            try:
                send(alert, settings)
            except (OSError, HTTPException, ValueError) as error:
                problem = f"{receiver} did not take the alert {alert.subject!r}: {type(error).__name__}: {error}"
                problems.append(masked(problem))
    return problems


def _host(url: str) -> str:
    """The URL without its path, which is secret at many services."""
    return "/".join(url.split("/")[:3])


def _post(alert: Alert, settings: AlertSettings) -> None:
    document = {"text": f"{alert.subject}\n{alert.text}", "event": alert.event, **alert.facts}
    request = urllib.request.Request(
        settings.webhook_url, masked(json.dumps(document)).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=settings.timeout_s):
        pass


def _mail(alert: Alert, settings: AlertSettings) -> None:
    message = EmailMessage()
    message["Subject"] = masked(" ".join(alert.subject.split()))
    message["From"] = settings.email_from
    message["To"] = ", ".join(settings.email_to)
    message.set_content(masked(alert.text))
    where = settings.smtp_host, settings.smtp_port
    if settings.smtp_security == "ssl":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            *where, timeout=settings.timeout_s, context=ssl.create_default_context()
        )
    else:
        server = smtplib.SMTP(*where, timeout=settings.timeout_s)
    with server:
        if settings.smtp_security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user:
            server.login(settings.smtp_user, settings.smtp_password)
        server.send_message(message)
