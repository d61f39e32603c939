"""Running the application: on this machine's own address, with one administrator, leaving within ten seconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from sanbai.feedback.accounts import add_account, find_account, list_accounts, make_sign_in_token
from sanbai.feedback.store import Store
from sanbai.foundation.errors import ResourceError, UsageError
from sanbai.serving.house import House
from sanbai.serving.problems import Problem
from sanbai.serving.security import is_loopback

ADMINISTRATOR = "admin"
#: A connection without a request, or with half a head of one, is closed after so long.
HEAD_SECONDS = 30.0
#: A connection whose client takes nothing of what is sent is closed after so long.
STALLED_SECONDS = 60.0


def first_administrator(store: Store, base_url: str) -> str:
    """Make the one administrator if nobody is one yet.

    Returns:
        The address that signs in once, to be printed once; empty when an administrator exists.
    """
    if any(account.role == "admin" for account in list_accounts(store)):
        return ""
    return sign_in_url(store, add_account(store, ADMINISTRATOR, "admin").name, base_url)


def sign_in_url(store: Store, name: str, base_url: str) -> str:
    """Return an address that signs an account in once, within a day.

    Raises:
        UnknownNameError: no such account.
    """
    return f"{base_url}/sign-in?token={make_sign_in_token(store, find_account(store, name))}"


def open_socket(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """Take the port before anything slow is loaded.

    Args:
        host: an address of this machine.
        port: 0 takes a free one.
        allow_remote: whether an address that others can reach is meant.

    Raises:
        UsageError: others could reach the address.
        ResourceError: the port is in use, or may not be used.
    """
    if not allow_remote and not is_loopback(host):
        raise UsageError(f"{host}: other machines could connect; set serve.allow_remote = true if that is meant")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ResourceError(f"{host}:{port}: {error.strerror or error}; choose another --port") from None
    return listener


def base_url_of(listener: socket.socket) -> str:
    """Return the address that a browser on this machine opens."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{shown}:{port}"


def serve(app: Starlette, host: str, port: int, *, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, from the main thread.

    Open answers then get `shutdown_seconds` to end; the rest is kept as interrupted.

    Args:
        app: of `create_app`.
        host: where to listen, unless a listener is given.
        port: likewise.
        listener: of `open_socket`.

    Raises:
        UsageError: see `open_socket`.
        ResourceError: see `open_socket`.
    """
    house: House = app.state.house
    taken = listener or open_socket(host, port, allow_remote=house.settings.allow_remote)
    # uvicorn leaves on these signals and then raises them again, which would end the process as killed.
    before = {number: signal.signal(number, _heed) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.Server(_configure(app)).run(sockets=[taken])
    finally:
        taken.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _heed(_: int, __: FrameType | None) -> None:
    """Do nothing more: the server has heeded the signal already."""


@contextlib.contextmanager
def loopback_server(app: Starlette, *, port: int = 0) -> Iterator[str]:
    """Serve from a thread for as long as the block lasts; gives the base URL.

    Raises:
        ResourceError: the port is in use, or the application did not start.
    """
    listener = open_socket("127.0.0.1", port)
    server = uvicorn.Server(_configure(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sanbai-server", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise ResourceError("the server did not start; see its log")
            time.sleep(0.01)
        yield base_url_of(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _configure(app: Starlette) -> uvicorn.Config:
    house: House = app.state.house
    # Its lines hold paths as they were sent. `access_log=False` alone leaves the logger to handlers that others add.
    logging.getLogger("uvicorn.access").disabled = True
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        lifespan="on",
        timeout_graceful_shutdown=max(1, int(house.settings.shutdown_seconds)),
        timeout_keep_alive=int(HEAD_SECONDS),
        ws="none",
        http=_Patience,
    )


class _Patience(H11Protocol):
    """Closes connections that would stay for ever: half-open ones, and those of clients that read nothing more."""

    _waiting: asyncio.TimerHandle | None = None
    """Closes where no whole head of a request comes."""
    _stalled: asyncio.TimerHandle | None = None
    """Closes where the buffer of what is to be sent stays full."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._waiting)
        _cancel(self._stalled)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - theirs is no envelope
        """Refuse what is no HTTP."""
        body = json.dumps(Problem(400, "this is no HTTP request", "invalid_request").envelope()).encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            _cancel(self._waiting)
            self._waiting = None
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
