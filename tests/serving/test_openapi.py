"""The document is true, and nothing that it describes breaks a route (Schemathesis)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from tests.serving.conftest import Site
from tests.serving.test_access import LEAST_ROLE, PAGES

from sanbai.serving.app import TABLE
from sanbai.serving.openapi import document

DOCUMENT = document(TABLE, version="1")
API = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = sorted(f"{method} {path}" for path, by_method in DOCUMENT["paths"].items() for method in by_method)
LAWS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate],
    "database": None,
}
#: What would end the key's own way in, or serve another model to the tests beside this one.
LEFT_OUT = {"post /api/sign-out", "post /api/rounds/rollback", "post /api/rounds/{n}/promote"}


def test_the_document_is_valid_and_served(site: Site) -> None:
    served = site.program().get("/openapi.json").json()
    assert served["paths"] == DOCUMENT["paths"]
    assert served["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(served).validate()


def test_the_document_has_every_route_but_the_pages_and_no_other() -> None:
    documented = {
        operation.replace("{id}", "{id:path}") if "/v1/models/" in operation else operation for operation in OPERATIONS
    }
    public = {route for route in LEAST_ROLE if route.split()[1] not in PAGES and "/static" not in route}
    assert documented == {f"{route.split()[0].lower()} {route.split()[1]}" for route in public}
    identifiers = [one["operationId"] for by_method in DOCUMENT["paths"].values() for one in by_method.values()]
    assert len(set(identifiers)) == len(identifiers)


def test_every_operation_says_what_it_does_who_may_and_what_it_takes() -> None:
    for path, by_method in DOCUMENT["paths"].items():
        for method, operation in by_method.items():
            assert operation["summary"].endswith((".", ":")), (path, method)
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert all(f"{{{name}}}" in path for name in named)
            assert path.count("{") == len(named)
            assert operation["security"] == ([] if operation["x-least-role"] == "anyone" else [{"key": []}])
    chat = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert chat == {"$ref": "#/components/schemas/ChatRequest"}
    properties = DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"model", "messages", "tools", "tool_choice", "stream", "n"} <= properties.keys()


def fuzz(site: Site, key: str, operation: str, data: st.DataObject, mode: GenerationMode) -> None:
    """Send one generated request and hold the answer to the document."""
    method, path = operation.split()
    case = data.draw(API[path][method].as_strategy(generation_mode=mode))
    if isinstance(case.body, dict):  # so that more of them reach the model, and stay short
        case.body |= {"model": "sanbai"} if "model" in case.body else {}
        case.body |= {
            name: 3 for name in ("max_tokens", "max_completion_tokens") if isinstance(case.body.get(name), int)
        }
        if "messages" in case.body and path.startswith("/v1/chat"):
            case.body.setdefault("max_tokens", 3)
    response = case.call(
        base_url=site.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, stream=False, allow_redirects=False
    )
    assert response.status_code < 500, (case.as_curl_command(), response.text)
    if response.status_code >= 400:
        error = json.loads(response.text)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "\n" not in error["message"]
        assert response.headers["x-should-retry"] in (["true"], ["false"])
    case.validate_response(response, checks=[schemathesis.checks.not_a_server_error])


@pytest.fixture(scope="module")
def key(site: Site) -> str:
    return site.key("admin")


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one not in LEFT_OUT])
def test_no_request_of_the_document_breaks_a_route(site: Site, key: str, operation: str) -> None:
    @settings(max_examples=4, **LAWS)
    @given(data=st.data(), mode=st.sampled_from(list(GenerationMode)))
    def law(data: st.DataObject, mode: GenerationMode) -> None:
        fuzz(site, key, operation, data, mode)

    law()
    assert site.stranger().get("/ready").status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one not in LEFT_OUT])
def test_no_request_of_the_document_breaks_a_route_at_length(site: Site, key: str, operation: str) -> None:
    @settings(max_examples=150, **LAWS)
    @given(data=st.data(), mode=st.sampled_from(list(GenerationMode)))
    def law(data: st.DataObject, mode: GenerationMode) -> None:
        fuzz(site, key, operation, data, mode)

    law()
    assert site.stranger().get("/ready").status_code == 200
