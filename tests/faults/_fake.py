"""A server that says what a test wants: for states that a real one is hard to bring into, or leaves too soon."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

from tests._proxy import Command, frame_end, read_command
from tests._servers import Server

Answer = Callable[[Command], bytes | None]


class Fake:
    """
    Listens on TCP, or at a unix socket's path, in threads of its own.

    Args:
        answer: The reply to a command; None: ask ``upstream``, b"": say nothing. May be replaced at any time.
        upstream: A real server for what is not answered here.
        path: Of a unix socket to listen on.
    """

    def __init__(self, answer: Answer, upstream: Server | None = None, path: str | None = None) -> None:
        self.answer = answer
        self.commands = 0
        self.connections = 0
        self._upstream = upstream
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
            self.url = f"redis://127.0.0.1:{self.port}/0"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(64)
            self.url = f"unix://{path}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(client)
            server: socket.socket | None = None
            data = b""
            while chunk := client.recv(1 << 16):
                data += chunk
                while (end := frame_end(data)) is not None:
                    frame, data = data[:end], data[end:]
                    self.commands += 1
                    reply = self.answer(read_command(frame))
                    if reply is None:
                        assert self._upstream is not None
                        if server is None:
                            server = stack.enter_context(socket.socket(socket.AF_UNIX))
                            server.connect(self._upstream.socket_path)
                        reply = _ask(server, frame)
                    client.sendall(reply)


def _ask(server: socket.socket, frame: bytes) -> bytes:
    server.sendall(frame)
    reply = b""
    while frame_end(reply) is None:
        reply += server.recv(1 << 16)
    return reply
