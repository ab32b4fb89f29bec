"""Receivers of alerts on loopback: an HTTP server and a mail server that record what they receive."""

import json
import socket
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller

from tests.background import in_background


@contextmanager
def webhook(status=200):
    """Yields the URL and a list of the requests, as headers, bytes and document."""
    got = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((dict(self.headers), body, json.loads(body)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    with in_background(server):
        yield f"http://127.0.0.1:{server.server_port}/hook/secret", got


@contextmanager
def mailbox():
    """Yields host, port and a list of the messages, as recipients and content."""
    got = []

    class Keeper:
        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            got.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Keeper(), hostname="127.0.0.1", port=port)
    controller.start()
    yield "127.0.0.1", port, got
    controller.stop()
