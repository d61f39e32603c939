"""The pages' shells, their static files, and whether the server is well."""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response

from sanbai.serving.metrics import CONTENT_TYPE
from sanbai.serving.problems import not_found
from sanbai.serving.routes import Call, Row

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@functools.cache
def static_folder() -> Path:
    """Return the folder of the pages, beside this file."""
    return Path(str(importlib.resources.files("sanbai.serving"))) / "static"


def page(name: str) -> Any:
    """Return the handler of a page's shell."""

    def show(_: Call) -> Response:
        return _file(static_folder() / name)

    return show


def static_file(call: Call) -> Response:
    """Send a file of the pages; nothing outside their folder, nothing of another kind."""
    folder = static_folder().resolve()
    path = (folder / str(call.request.path_params["path"]).replace("\0", "")).resolve()
    if not path.is_relative_to(folder):
        raise not_found()
    return _file(path)


def health(_: Call) -> dict[str, Any]:
    """Say that the process answers."""
    return {"status": "ok"}


def ready(call: Call) -> Response:
    """Say whether requests should be sent here: a model is loaded, nothing is stuck, nobody is shutting down."""
    engine = call.house.source
    why = engine.unready_because()
    state = {"running": engine.num_running, "waiting": engine.num_waiting}
    return JSONResponse({"status": why or "ready", **state}, 503 if why else 200)


def metrics(call: Call) -> Response:
    """Send the server's figures to Prometheus."""
    return Response(call.house.source.metrics_page(), media_type=CONTENT_TYPE)


def _file(path: Path) -> Response:
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None or not path.is_file():
        raise not_found()
    return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})


ROWS = (
    Row("GET", "/health", "anyone", health),
    Row("GET", "/ready", "anyone", ready),
    Row("GET", "/metrics", "admin", metrics),
    Row("GET", "/", "user", page("chat.html"), is_page=True),
    Row("GET", "/label", "labeler", page("label.html"), is_page=True),
    Row("GET", "/rounds", "user", page("rounds.html"), is_page=True),
    Row("GET", "/sign-in", "anyone", page("sign_in.html"), is_page=True),
    Row("GET", "/static/{path:path}", "anyone", static_file),
)
