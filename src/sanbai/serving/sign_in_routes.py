"""Signing in and out, and what an account may say about itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from starlette.responses import JSONResponse, Response

from sanbai.feedback import accounts, consent
from sanbai.feedback.accounts import SESSION_MS, Account
from sanbai.serving.access import COOKIE
from sanbai.serving.problems import Problem
from sanbai.serving.routes import Body, Call, NoBody, PlainText, Row


class SignIn(Body):
    """Name and password, or a one-time token."""

    name: PlainText = Field(default="", max_length=200)
    password: PlainText = Field(default="", max_length=accounts.LONGEST_PASSWORD)
    token: PlainText = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _check_either(self) -> SignIn:
        if bool(self.token) == bool(self.name):
            raise ValueError("wanted name and password, or token")
        return self


class Password(Body):
    """A new password."""

    password: PlainText = Field(max_length=accounts.LONGEST_PASSWORD)


class Consent(Body):
    """Whether what the account says may train models."""

    granted: bool


def sign_in(call: Call) -> Response:
    """Open a session and set its cookie."""
    wanted, house = call.body(SignIn), call.house
    client = call.request.client.host if call.request.client else ""
    who = f"{client} {wanted.name.casefold()}"
    house.throttle.check(who)
    if wanted.token:
        account = accounts.use_sign_in_token(house.store, wanted.token)
        wrong = "this sign-in link was used before or is too old; ask for a new one"
    else:
        account = accounts.check_password(house.store, wanted.name, wanted.password)
        wrong = "name and password do not fit"
    if account is None:
        house.throttle.fail(who)
        raise Problem(401, wrong, "invalid_credentials", "authentication_error")
    house.throttle.succeed(who)
    session, cookie = accounts.open_session(house.store, account)
    response = JSONResponse(_me(call, account, session.csrf))
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_MS // 1000,
        httponly=True,
        samesite="lax",
        secure=call.request.url.scheme == "https",
    )
    return response


def sign_out(call: Call) -> Response:
    """End the session and take the cookie back."""
    if call.session is not None:
        accounts.end_session(call.house.store, call.session)
    response = JSONResponse({})
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return response


def me(call: Call) -> dict[str, Any]:
    """Say who is signed in."""
    csrf = call.session.csrf if call.session else ""
    return _me(call, call.account, csrf) | {"consent": consent.find_consent(call.house.store, call.account)}


def set_password(call: Call) -> dict[str, Any]:
    """Choose a password; only in a browser, where the one-time sign-in or the old password came before."""
    if call.session is None:
        raise Problem(403, "a password is chosen in the browser", "forbidden", "permission_error")
    accounts.set_password(call.house.store, call.account, call.body(Password).password, keep=call.session)
    return {}


def set_consent(call: Call) -> dict[str, Any]:
    """Grant or revoke."""
    consent.set_consent(call.house.store, call.account, granted=call.body(Consent).granted)
    return {"consent": call.body(Consent).granted}


def _me(call: Call, account: Account, csrf: str) -> dict[str, Any]:
    return {
        "name": account.name,
        "role": account.role,
        "csrf": csrf,
        "must_set_password": not accounts.has_password(call.house.store, account),
    }


ROWS = (
    Row("POST", "/api/sign-in", "anyone", sign_in, SignIn),
    Row("POST", "/api/sign-out", "user", sign_out, NoBody),
    Row("GET", "/api/me", "user", me),
    Row("POST", "/api/me/password", "user", set_password, Password),
    Row("POST", "/api/me/consent", "user", set_consent, Consent),
)
