"""A gate before an object store that answers 503 on demand: ``python -m tests.cluster.store_gate --port N --to M``.

While the file ``--closed`` exists, each request is answered 503 and not passed on. Requests that were passed on before
are answered by the store. It passes bytes on without looking into them: a request begins when a client sends something
after the store has answered.
"""

import argparse
import socket
import threading
from contextlib import suppress
from pathlib import Path

ANSWER = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
CHUNK = 1 << 18


class Gate:
    """Passes connections on.

    Attributes:
        refused: requests that were answered 503.
    """

    def __init__(self, port: int, to: int, closed: Path) -> None:
        self._to, self._closed = to, closed
        self.refused = 0
        self._server = socket.create_server(("127.0.0.1", port), backlog=256)

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            client, _ = self._server.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._passed, args=(client,), daemon=True).start()

    def _passed(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            store = socket.create_connection(("127.0.0.1", self._to))
            store.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = threading.Event()
            answered.set()
            with store:
                threading.Thread(target=_answers, args=(store, client, answered), daemon=True).start()
                while sent := client.recv(CHUNK):
                    if answered.is_set() and self._closed.exists():
                        self._refuse(client)
                        return
                    answered.clear()
                    store.sendall(sent)
                with suppress(OSError):
                    store.shutdown(socket.SHUT_WR)

    def _refuse(self, client: socket.socket) -> None:
        self.refused += 1
        with self._closed.with_name("refused").open("a") as log:
            log.write(".")
        client.sendall(ANSWER)
        client.shutdown(socket.SHUT_WR)
        # Closing with unread bytes would reset the connection before the answer is read.
        client.settimeout(5)
        while client.recv(CHUNK):
            pass


def _answers(store: socket.socket, client: socket.socket, answered: threading.Event) -> None:
    with suppress(OSError):
        while got := store.recv(CHUNK):
            answered.set()
            client.sendall(got)
        client.shutdown(socket.SHUT_WR)


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True, help="port of the store")
    parser.add_argument("--closed", type=Path, required=True, help="file that closes the gate while it exists")
    given = parser.parse_args()
    Gate(given.port, given.to, given.closed).serve()


if __name__ == "__main__":
    main()
