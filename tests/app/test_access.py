"""Who may do and see what: keys, scopes, bindings, strangers, and what errors give away."""

from pathlib import Path
from typing import Any

import pytest

from app.auth import Keys
from app.serve import serve
from kb.errors import BadConfiguration
from kb.settings import load
from tests.app.serving import Home, error


def key(home: Home, scope: str, *kbs: str) -> dict[str, str]:
    name = f"{scope}{len(home.keys.list())}"
    return {"Authorization": f"Bearer {home.keys.create(name, scope, kbs)}"}  # type: ignore[arg-type]


def test_without_keys_this_machine_is_let_in_and_no_other(still: Home) -> None:
    url = "/v1/models"
    assert still.client.get(url).status_code == 200
    for headers in (
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        error(still.client.get(url, headers=headers), 403, "forbidden")
    assert still.client.get(url, headers={"Origin": "http://localhost:8000"}).status_code == 200


def test_once_a_key_exists_one_is_needed(home: Home) -> None:
    mine = key(home, "chat")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        reply = home.client.get("/v1/models", headers=headers)
        error(reply, 401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert home.client.get("/v1/models", headers=mine).status_code == 200
    home.keys.revoke("chat0")
    key(home, "chat")
    error(home.client.get("/v1/models", headers=mine), 401, "invalid_api_key")


def test_keys_are_stored_hashed_and_for_their_owner_only(home: Home) -> None:
    token = home.keys.create("one", "chat")
    file = home.path / "keys.json"
    assert token not in file.read_text() and file.stat().st_mode & 0o077 == 0


def test_each_scope_reaches_as_far_as_it_says(home: Home) -> None:
    chat, write, admin = (key(home, scope) for scope in ("chat", "write", "admin"))
    store = f"/v1/vector_stores/{home.handbook}"
    error(home.upload("a.md", headers=chat), 403, "forbidden")
    assert home.upload("a.md", headers=write).status_code == 200
    new: dict[str, Any] = {"json": {"name": "new"}}
    for headers in (chat, write):
        error(home.client.post("/v1/vector_stores", headers=headers, **new), 403, "forbidden")
        error(home.client.delete(store, headers=headers), 403, "forbidden")
        assert home.client.get(store, headers=headers).status_code == 200
    assert home.client.post("/v1/vector_stores", headers=admin, **new).status_code == 200
    assert home.client.delete(store, headers=admin).status_code == 200


def test_a_bound_key_cannot_tell_whether_another_store_exists(home: Home) -> None:
    other = home.add("other")
    home.write("secret.md", "The pharmacy opens at midnight on weekdays.", "other")
    bound = key(home, "admin", "handbook")
    missing = "vs_000000000000000000000000"

    def said(store: str, method: str, path: str = "", **more: Any) -> str:
        url = f"/v1/vector_stores/{store}{path}"
        reply = home.client.request(method, url, headers=bound, **more)
        error(reply, 404, "vector_store_not_found")
        return reply.text.replace(store, "X")

    for method, path, more in [
        ("GET", "", {}),
        ("DELETE", "", {}),
        ("GET", "/files", {}),
        ("POST", "/files", {"json": {"file_id": "file-" + "0" * 24}}),
        ("POST", "/search", {"json": {"query": "pharmacy"}}),
        ("POST", "/upload", {"files": {"file": ("a.md", "A")}}),
    ]:
        assert said(other, method, path, **more) == said(missing, method, path, **more)
    listed = home.client.get("/v1/vector_stores", headers=bound).json()["data"]
    assert [one["name"] for one in listed] == ["handbook"]
    metrics = home.client.get("/metrics", headers=bound).text
    assert 'knowledge_base="handbook"' in metrics and "other" not in metrics
    files = home.client.get("/v1/files", headers=bound).json()["data"]
    assert "secret.md" not in {file["filename"] for file in files}
    error(
        home.client.post("/v1/vector_stores", headers=bound, json={"name": "other"}),
        403,
        "forbidden",
    )


def test_a_bound_keys_answers_come_from_its_own_stores(home: Home) -> None:
    home.add("other")
    home.write("secret.md", "The pharmacy opens at midnight on weekdays.", "other")
    bound = key(home, "chat", "handbook")
    body = {"model": "vademecum", "messages": [{"role": "user", "content": "pharmacy opens"}]}
    reply = home.client.post("/v1/chat/completions", json=body, headers=bound).json()
    assert set(reply["knowledge"]["generation"]) == {home.handbook}
    assert {hit["filename"] for hit in reply["knowledge"]["hits"]} == {"hours.md"}


def test_what_another_key_uploaded_cannot_be_seen(home: Home) -> None:
    mine, other, admin = key(home, "write"), key(home, "write"), key(home, "admin")
    bound = key(home, "admin", "handbook")
    form: dict[str, Any] = {"files": {"file": ("a.md", "A")}, "data": {"purpose": "assistants"}}
    file = home.client.post("/v1/files", headers=mine, **form).json()["id"]
    for headers in (other, bound):
        error(home.client.get(f"/v1/files/{file}", headers=headers), 404, "file_not_found")
        error(home.client.delete(f"/v1/files/{file}", headers=headers), 404, "file_not_found")
        url = f"/v1/vector_stores/{home.handbook}/files"
        reply = home.client.post(url, json={"file_id": file}, headers=headers)
        error(reply, 404, "file_not_found")
    for headers in (mine, admin):
        assert home.client.get(f"/v1/files/{file}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-9", 404, "model_not_found"),
        ("GET", "/v1/vector_stores/nope", 404, "vector_store_not_found"),
        ("GET", "/v1/files/nope", 404, "file_not_found"),
        ("POST", "/v1/chat/completions", 400, "invalid_value"),
        ("POST", "/v1/embeddings", 400, "invalid_value"),
        ("GET", "/v1/files?limit=many", 400, "invalid_value"),
    ],
)
def test_every_error_has_openais_shape_and_no_path(
    still: Home, method: str, path: str, status: int, code: str
) -> None:
    reply = still.client.request(method, path)
    error(reply, status, code)
    assert str(still.path) not in reply.text and "Traceback" not in reply.text


@pytest.mark.parametrize("content", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": NaN}'])
def test_a_body_that_is_no_object_is_a_bad_request(still: Home, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = still.client.post("/v1/chat/completions", content=content, headers=headers)
    assert error(reply, 400, reply.json()["error"]["code"])["type"] == "invalid_request_error"


def test_a_damaged_key_file_lets_nobody_in(home: Home) -> None:
    (home.path / "keys.json").write_text("{")
    reply = home.client.get("/v1/models")
    error(reply, 500, "internal_error")
    assert "keys" not in reply.text


def test_an_open_address_needs_a_key_before_anything_starts(tmp_path: Path) -> None:
    open_to_all = {
        "VADEMECUM_HOME": str(tmp_path),
        "VADEMECUM_APP__HOST": "0.0.0.0",
        "VADEMECUM_KB__EMBEDDER": "no-such-model",
    }
    with pytest.raises(BadConfiguration, match="keys create"):
        serve(load(open_to_all, tmp_path))


def test_a_revoked_last_key_does_not_open_an_open_address(tmp_path: Path) -> None:
    from app.settings import AppSettings

    home = Home(tmp_path, settings=AppSettings(host="0.0.0.0"))
    Keys(tmp_path / "keys.json").create("one", "chat")
    home.keys.revoke("one")
    error(home.client.get("/v1/models"), 401, "invalid_api_key")
    home.close()
