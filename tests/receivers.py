"""Receivers of alerts on loopback: an HTTP server and a mail server that record what they receive."""

import json
import socket
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller

from tests.background import in_background


@contextmanager
def http_receiver(receive, status=200):
    """Yields host and port of a server that passes its handler and the body of each POST and PUT to `receive`."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            receive(self, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    with in_background(server):
        yield f"127.0.0.1:{server.server_port}"


@contextmanager
def webhook(status=200):
    """Yields the URL and a list of the requests, as headers, bytes and document."""
    got = []
    with http_receiver(lambda call, body: got.append((dict(call.headers), body, json.loads(body))), status) as address:
        yield f"http://{address}/hook/secret", got


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
