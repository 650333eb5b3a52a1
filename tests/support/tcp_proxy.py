"""A TCP proxy that can stop answering, or close every connection, as a server that is slow or away does."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal, Self

#: `pass`: everything goes through. `hang`: connections are accepted, nothing goes through. `refuse`: every
#: connection is closed at once.
Mode = Literal["pass", "hang", "refuse"]


class TcpProxy:
    """Listens on a free port of this computer and forwards to another port."""

    def __init__(self, target_port: int) -> None:
        #: It may change: new connections lead to the new one.
        self.target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._refuses = False
        self._flows = threading.Event()
        self._flows.set()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="tcp-proxy", daemon=True).start()

    def set(self, mode: Mode) -> None:
        """What happens to connections from now on, those that are open too."""
        with self._lock:
            self._refuses = mode == "refuse"
            if mode != "pass":
                self._flows.clear()
            if self._refuses:
                self._close_all()
            if mode == "pass":
                self._flows.set()

    def close(self) -> None:
        with self._lock:
            self._refuses = True
            self._close_all()
        self._flows.set()
        _shut(self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_all(self) -> None:
        for each in self._open:
            _shut(each)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._refuses:
                    _shut(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.target_port))
                except OSError:
                    _shut(client)
                    continue
                self._open |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        with self._lock:
            self._open -= {source, target}
        _shut(source)
        _shut(target)


def _shut(each: socket.socket) -> None:
    # Only this ends a call that another thread waits in.
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
