"""A server on loopback that speaks chat completions, in a thread of this process, with faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], int], tuple[int, bytes, dict[str, str]]]  # of a request and its number from 0


def completion(text: object, reason: str = "stop") -> bytes:
    """A good response's body."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()


def shout(request: dict[str, Any], _: int) -> tuple[int, bytes, dict[str, str]]:
    """The text of the prompt (after its first blank line) in capitals."""
    return 200, completion(request["messages"][0]["content"].partition("\n\n")[2].upper()), {}


class ChatServer(ThreadingHTTPServer):
    """Counts and keeps what it was asked; ``reply`` says what it answers."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.lock = reply, threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    def handle_error(self, *_: object) -> None:
        """Quiet: a client that gave up has closed its end."""

    @property
    def url(self) -> str:
        """What a recipe gives as base_url."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(request)
            self.server.headers.append(dict(self.headers))
        status, body, headers = self.server.reply(request, number)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(reply: Reply = shout) -> Iterator[ChatServer]:
    """A server that answers until the block ends."""
    server = ChatServer(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sleeping(seconds: float) -> Reply:
    """Answers too late."""

    def reply(request: dict[str, Any], number: int) -> tuple[int, bytes, dict[str, str]]:
        time.sleep(seconds)
        return shout(request, number)

    return reply
