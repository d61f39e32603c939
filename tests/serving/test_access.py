from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from tests.serving.conftest import Site, ask, read_events, running_site

from sanbai.feedback.accounts import find_account, find_api_key, revoke_api_key
from sanbai.serving import access
from sanbai.serving.access import Throttle
from sanbai.serving.app import TABLE
from sanbai.serving.problems import Problem
from sanbai.text.tokenizer import Tokenizer

#: Written by hand, beside the code and not from it: the least role that each route asks for.
LEAST_ROLE = {
    "GET /health": "anyone",
    "GET /ready": "anyone",
    "GET /metrics": "admin",
    "GET /openapi.json": "user",
    "GET /": "user",
    "GET /label": "labeler",
    "GET /rounds": "user",
    "GET /sign-in": "anyone",
    "GET /static/{path:path}": "anyone",
    "POST /api/sign-in": "anyone",
    "POST /api/sign-out": "user",
    "GET /api/me": "user",
    "POST /api/me/password": "user",
    "POST /api/me/consent": "user",
    "GET /api/welcome": "user",
    "GET /api/models": "user",
    "GET /api/conversations": "user",
    "POST /api/conversations": "user",
    "GET /api/conversations/{id}": "user",
    "PATCH /api/conversations/{id}": "user",
    "DELETE /api/conversations/{id}": "user",
    "POST /api/conversations/{id}/messages": "user",
    "POST /api/messages/{id}/regenerate": "user",
    "GET /api/generations/{id}/events": "user",
    "POST /api/generations/{id}/stop": "user",
    "POST /api/messages/{id}/feedback": "user",
    "POST /api/drafts/{id}/choose": "user",
    "GET /api/label/tasks": "labeler",
    "GET /api/label/next": "labeler",
    "POST /api/label/tasks/{id}/answer": "labeler",
    "POST /api/label/answers": "labeler",
    "GET /api/label/progress": "labeler",
    "POST /api/label/demonstrations": "labeler",
    "GET /api/rounds": "user",
    "POST /api/rounds/rollback": "admin",
    "GET /api/rounds/{n}": "user",
    "GET /api/rounds/{n}/plots/{name}.svg": "user",
    "GET /api/rounds/{n}/report": "user",
    "POST /api/rounds/{n}/promote": "admin",
    "GET /api/accounts": "admin",
    "POST /api/accounts": "admin",
    "POST /api/accounts/{name}/keys": "admin",
    "POST /v1/chat/completions": "user",
    "POST /v1/completions": "user",
    "POST /v1/embeddings": "user",
    "POST /v1/score": "user",
    "POST /tokenize": "user",
    "POST /detokenize": "user",
    "GET /tokenizer_info": "user",
    "GET /v1/models": "user",
    "GET /v1/models/{id:path}": "user",
}
ORDER = ["anyone", "user", "labeler", "admin"]
PAGES = {"/", "/label", "/rounds", "/sign-in"}


def place(path: str) -> str:
    for part in ("{path:path}", "{id:path}", "{id}", "{n}", "{name}"):
        path = path.replace(part, "nothing" if part != "{n}" else "999")
    return path


def test_every_route_has_a_row_and_every_row_a_route(site: Site) -> None:
    rows = {f"{row.method} {row.path}" for row in TABLE}
    assert rows == set(LEAST_ROLE)
    assert len(rows) == len(TABLE)
    served = {f"{method} {route.path}" for route in site.app.routes for method in route.methods if method != "HEAD"}  # type: ignore[attr-defined]
    assert served == rows


@pytest.mark.parametrize("caller", ["anyone", "user", "labeler", "admin"])
@pytest.mark.parametrize("by_key", [False, True], ids=["cookie", "key"])
def test_every_route_lets_in_those_it_should_and_nobody_else(site: Site, caller: str, by_key: bool) -> None:
    make = site.program if by_key else site.client
    client = site.stranger() if caller == "anyone" else make(caller)  # type: ignore[operator]
    for route, least in LEAST_ROLE.items():
        method, path = route.split()
        if path == "/api/sign-out":
            continue  # would end the session; tested below
        response = client.request(method, place(path), json={} if method in {"POST", "PATCH"} else None)
        allowed = ORDER.index(caller) >= ORDER.index(least)
        if allowed:
            forbidden = response.status_code in {401, 403} and path not in {"/api/sign-in", "/api/me/password"}
            assert not forbidden, (route, response.text)
            assert response.status_code < 500, (route, response.text)
        elif path in PAGES:
            assert response.status_code == 303, route
            assert response.headers["location"] == ("/" if caller != "anyone" else f"/sign-in?next={path}")
        else:
            assert response.status_code == (401 if caller == "anyone" else 403), route
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_what_one_person_owns_no_other_can_touch_not_even_the_administrator(site: Site) -> None:
    owner = site.client()
    asked = ask(owner, drafts=2)
    for generation in asked["generations"]:
        read_events(owner, generation["id"])
    conversation, drafts_id = asked["conversation"], asked["drafts_id"]
    generation, message = asked["generations"][0]["id"], asked["generations"][0]["message_id"]
    attempts = [
        ("GET", f"/api/conversations/{conversation}", None),
        ("PATCH", f"/api/conversations/{conversation}", {"title": "mine now"}),
        ("POST", f"/api/conversations/{conversation}/messages", {"content": "hello"}),
        ("POST", f"/api/messages/{message}/regenerate", {}),
        ("GET", f"/api/generations/{generation}/events", None),
        ("POST", f"/api/generations/{generation}/stop", {}),
        ("POST", f"/api/messages/{message}/feedback", {"value": 1}),
        ("POST", f"/api/drafts/{drafts_id}/choose", {"choice": 0}),
        ("DELETE", f"/api/conversations/{conversation}", None),
    ]
    for other in (site.client("user"), site.client("labeler"), site.client("admin")):
        for method, path, body in attempts:
            response = other.request(method, path, json=body)
            assert response.status_code == 404, (method, path, response.text)
    for method, path, body in attempts[:4]:
        assert owner.request(method, path, json=body).status_code == 200, path


@pytest.mark.parametrize(
    ("scope", "inside", "outside"), [("v1", "/v1/models", "/api/me"), ("api", "/api/me", "/v1/models")]
)
def test_a_key_opens_only_what_its_scopes_name(site: Site, scope: str, inside: str, outside: str) -> None:
    program = site.program(scopes=(scope,))
    assert program.get(inside).status_code == 200
    assert program.get(outside).status_code == 403


def test_a_revoked_key_is_refused_at_once(site: Site) -> None:
    key = site.key()
    program = site.stranger()
    program.headers["Authorization"] = f"Bearer {key}"
    assert program.get("/v1/models").status_code == 200
    found = find_api_key(site.store, key)
    assert found is not None
    revoke_api_key(site.store, found)
    assert program.get("/v1/models").status_code == 401


@pytest.mark.parametrize("header", ["Bearer", "Bearer sk-nothing", "Basic YTpi", "nonsense", "Bearer \xff"])
def test_a_bad_authorization_is_refused_even_beside_a_good_cookie(site: Site, header: str) -> None:
    client = site.client()
    response = client.get("/api/me", headers=[(b"Authorization", header.encode("latin-1"))])
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


def test_signing_in_with_a_password_and_out(site: Site) -> None:
    client = site.client(name="paula")
    assert client.get("/api/me").json()["must_set_password"] is True
    assert client.post("/api/me/password", json={"password": "short"}).status_code == 400
    assert client.post("/api/me/password", json={"password": "a good long one"}).status_code == 200
    assert client.get("/api/me").json() | {"csrf": ""} == {
        "name": "paula",
        "role": "user",
        "csrf": "",
        "must_set_password": False,
        "consent": None,
    }
    again = site.stranger()
    signed = again.post("/api/sign-in", json={"name": "paula", "password": "a good long one"})
    cookie = signed.headers["set-cookie"].lower()
    assert signed.status_code == 200
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    again.headers["X-CSRF-Token"] = signed.json()["csrf"]
    stolen = dict(again.cookies)
    assert again.post("/api/sign-out").status_code == 200
    assert again.get("/api/me").status_code == 401
    assert httpx2.get(f"{site.url}/api/me", cookies=stolen).status_code == 401


def test_a_sign_in_link_works_once(site: Site) -> None:
    from sanbai.feedback.accounts import make_sign_in_token

    token = make_sign_in_token(site.store, find_account(site.store, site.account()))
    assert site.stranger().post("/api/sign-in", json={"token": token}).status_code == 200
    assert site.stranger().post("/api/sign-in", json={"token": token}).status_code == 401


def test_wrong_names_and_wrong_passwords_look_alike(site: Site) -> None:
    name = site.account()
    answers = [
        site.stranger().post("/api/sign-in", json={"name": who, "password": "not this one"})
        for who in (name, "no-such-person")
    ]
    assert answers[0].status_code == answers[1].status_code == 401
    assert answers[0].json() == answers[1].json()


def test_guessing_is_slowed_down(site: Site) -> None:
    client, name = site.stranger(), site.account()
    statuses = [
        client.post("/api/sign-in", json={"name": name, "password": f"guess {number}"}).status_code
        for number in range(7)
    ]
    assert statuses == [401] * Throttle.FREE_FAILURES + [429] * 2
    refused = client.post("/api/sign-in", json={"name": name, "password": "x"})
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    other = client.post("/api/sign-in", json={"name": site.account(), "password": "x"})
    assert other.status_code == 401  # another name is free


def test_the_wait_doubles_and_a_success_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: clock[0])
    throttle, waits = Throttle(), []
    for _ in range(Throttle.FREE_FAILURES + 10):
        waited = 0
        while True:
            try:
                throttle.check("anna")
                break
            except Problem:
                waited += 1
                clock[0] += 1
        waits.append(waited)
        throttle.fail("anna")
    assert waits == [0] * 5 + [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    throttle.succeed("anna")
    throttle.check("anna")


def test_a_write_needs_the_csrf_token_of_its_own_session(site: Site) -> None:
    client, other = site.client(), site.client()
    place_ = "/api/conversations"
    assert client.post(place_, json={}).status_code == 200
    for token in ("", "wrong", other.headers["X-CSRF-Token"]):
        refused = client.post(place_, json={}, headers={"X-CSRF-Token": token})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:9"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/api/conversations", "/api/sign-in"])
def test_a_write_from_another_sites_page_is_refused(site: Site, headers: dict[str, str], path: str) -> None:
    client = site.client()
    assert client.post(path, json={}, headers=headers).status_code == 403
    assert client.post(path, json={}, headers={"Origin": site.url}).status_code in {200, 400}


def test_no_other_site_may_read(site: Site) -> None:
    client = site.client()
    response = client.get("/api/me", headers={"Origin": "https://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    preflight = client.request("OPTIONS", "/api/conversations", headers={"Origin": "https://evil.example"})
    assert preflight.status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8300", "", "127.0.0.1.evil.example", "10.0.0.1"])
def test_another_hosts_name_is_refused(site: Site, host: str) -> None:
    response = site.client().get("/api/me", headers={"Host": host})
    assert (response.status_code, response.json()["error"]["code"]) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["localhost:8300", "127.0.0.1", "[::1]:8300", "127.5.4.3:1"])
def test_this_machines_names_are_fine(site: Site, host: str) -> None:
    assert site.client().get("/health", headers={"Host": host}).status_code == 200


def test_remote_hosts_are_served_only_when_that_is_said(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, allow_remote=True) as far:
        assert far.stranger().get("/health", headers={"Host": "chat.example"}).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/", "/sign-in", "/api/me", "/nowhere", "/v1/models", "/static/icon.svg"])
def test_every_response_carries_the_guards(site: Site, path: str) -> None:
    headers = site.stranger().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-request-id"].startswith("req_")
    assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/",
        "/static/chat",
        "/static/%00",
    ],
)
def test_nothing_outside_the_static_folder_is_sent(site: Site, path: str) -> None:
    response = site.stranger().get(path)
    assert response.status_code == 404
    assert "import" not in response.text


def test_static_files_come_with_their_types(site: Site) -> None:
    client = site.stranger()
    assert client.get("/static/icon.svg").headers["content-type"].startswith("image/svg+xml")
    assert client.get("/static/shared/api.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/sign-in").headers["content-type"].startswith("text/html")


def test_an_administrator_makes_accounts_and_keys(site: Site) -> None:
    admin = site.client("admin")
    made = admin.post("/api/accounts", json={"name": "newcomer", "role": "labeler"}).json()
    token = made["sign_in"].removeprefix("/sign-in?token=")
    assert site.stranger().post("/api/sign-in", json={"token": token}).json()["role"] == "labeler"
    key = admin.post("/api/accounts/newcomer/keys", json={"scopes": ["v1"]}).json()["key"]
    program = site.stranger()
    program.headers["Authorization"] = f"Bearer {key}"
    assert program.get("/v1/models").status_code == 200
    listed = {one["name"]: one for one in admin.get("/api/accounts").json()["accounts"]}
    assert listed["newcomer"]["keys"] == [key[:8]]
    assert key not in admin.get("/api/accounts").text
    assert admin.post("/api/accounts", json={"name": "newcomer", "role": "user"}).status_code == 400
    assert admin.post("/api/accounts/nobody/keys", json={}).status_code == 404
