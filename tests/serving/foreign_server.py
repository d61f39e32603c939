"""A small server that answers as it is told, byte by byte: other engines' dialects, and worse."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "org/Some-Model"


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Connection:
    """The way back to whoever asked."""

    def __init__(self, handler: BaseHTTPRequestHandler, gone: threading.Event) -> None:
        self._handler, self._gone = handler, gone

    def send(self, *parts: bytes | str) -> bool:
        """Send as it is; False once the other side has left."""
        try:
            for part in parts:
                self._handler.wfile.write(part.encode() if isinstance(part, str) else part)
                self._handler.wfile.flush()
        except OSError:
            self._gone.set()
            return False
        return True

    def begin(self, status: int = 200, *, kind: str = "text/event-stream", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} x", f"Content-Type: {kind}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    def json(self, value: object, status: int = 200, **headers: str) -> None:
        self.begin(status, kind="application/json", **headers)
        self.send(value if isinstance(value, bytes | str) else json.dumps(value))

    def events(self, *values: object, done: bool = True) -> None:
        """Send a stream of server-sent events, with `[DONE]` or without."""
        self.begin()
        self.send(*(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n" for value in values))
        if done:
            self.send("data: [DONE]\n\n")

    def has_left(self, seconds: float = 10.0) -> bool:
        """Whether the other side leaves within a while."""
        self._handler.connection.settimeout(seconds)
        try:
            left = self._handler.connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            left = True
        if left:
            self._gone.set()
        return left


Reply = Callable[[Connection], None]


@dataclass
class ForeignServer:
    """Set `reply` to what the next answers shall be; `asked` lists what came."""

    url: str
    reply: Reply = lambda connection: connection.json({})
    asked: list[Asked] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def last(self) -> Asked:
        return self.asked[-1]


@contextlib.contextmanager
def foreign_server() -> Iterator[ForeignServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            Connection(self, made.gone).json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
            self.close_connection = True

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            made.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(content)))
            made.reply(Connection(self, made.gone))
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made = ForeignServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a chat's stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice], **more}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }
