"""Uploads, files and vector stores as a client sees them."""

from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from app.settings import AppSettings
from app.uploads import safe_name
from tests.app.serving import HOURS, QUESTION, Home, error, listening

MB = 2**20


def stage(home: Home, name: str = "notes.md", content: str = HOURS) -> str:
    reply = home.client.post(
        "/v1/files", files={"file": (name, content)}, data={"purpose": "assistants"}
    )
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def on_disk(home: Home) -> list[Path]:
    return sorted(p for p in (home.path / "uploads").rglob("*") if p.is_file())


def test_an_upload_is_on_disk_when_the_reply_comes_and_in_progress(home: Home) -> None:
    (file,) = home.upload("notes.md").json()["data"]
    assert file["object"] == "vector_store.file" and file["status"] == "in_progress"
    assert file["filename"] == "notes.md" and file["vector_store_id"] == home.handbook
    path = home.catalog.uploads("handbook") / file["id"] / "notes.md"
    assert path.read_text() == HOURS and on_disk(home) == [path]
    listed = home.client.get(f"/v1/vector_stores/{home.handbook}").json()
    assert listed["file_counts"]["in_progress"] == 1 and listed["status"] == "in_progress"


def test_a_completed_upload_is_found_under_its_own_name(home: Home) -> None:
    (file,) = home.upload("owls.md", "Owls fly by night over the old mill.").json()["data"]
    home.take_in()
    now = home.client.get(f"/v1/vector_stores/{home.handbook}/files/{file['id']}").json()
    assert now["status"] == "completed" and now["last_error"] is None
    body = home.ask("Where do owls fly by night?").json()
    assert body["knowledge"]["hits"][0]["filename"] == "owls.md"
    assert body["knowledge"]["hits"][0]["file_id"] == file["id"]


def test_many_files_come_in_one_upload(home: Home) -> None:
    files = [("files", ("a.md", "A")), ("files", ("b.txt", "B"))]
    reply = home.client.post(f"/v1/vector_stores/{home.handbook}/upload", files=files)
    assert [one["filename"] for one in reply.json()["data"]] == ["a.md", "b.txt"]


def test_a_file_that_cannot_be_read_says_why(home: Home) -> None:
    (file,) = home.upload("locked.pdf").json()["data"]
    home.fail(file["id"], "locked.pdf")
    now = home.client.get(f"/v1/vector_stores/{home.handbook}/files/{file['id']}").json()
    assert now["status"] == "failed"
    assert now["last_error"] == {"code": "encrypted", "message": "locked.pdf has a password"}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../../etc/cron.d/evil.md", "evil.md"),
        ("..\\..\\boot.md", "boot.md"),
        ("/etc/passwd.txt", "passwd.txt"),
        (".hidden.md", "hidden.md"),
        ("~$draft.docx", "draft.docx"),
        ("exe\u202ecod.md", "execod.md"),
        ("a\r\nSet-Cookie: x.md", "aSet-Cookie: x.md"),
        ("药房.md", "药房.md"),
    ],
)
def test_a_name_cannot_lead_anywhere(sent: str, kept: str) -> None:
    assert safe_name(sent) == kept


def test_a_very_long_name_fits_the_file_system() -> None:
    assert len(safe_name("药" * 300 + ".md").encode()) <= 200
    assert safe_name("药" * 300 + ".md").endswith(".md")


@pytest.mark.parametrize("name", ["../../../../tmp/evil.md", "..%2f..%2fevil.md", "/evil.md"])
def test_an_upload_stays_in_its_folder(home: Home, name: str) -> None:
    (file,) = home.upload(name).json()["data"]
    (path,) = on_disk(home)
    assert path.parent == home.catalog.uploads("handbook") / file["id"]
    assert "/" not in file["filename"]


@pytest.mark.parametrize("name", ["run.exe", "noending", "page.md.exe", ".md"])
def test_what_is_no_document_is_refused_and_nothing_is_kept(still: Home, name: str) -> None:
    error(still.upload(name), 415, "unsupported_type")
    files = [("files", ("good.md", "A")), ("files", (name, "B"))]
    reply = still.client.post(f"/v1/vector_stores/{still.handbook}/upload", files=files)
    error(reply, 415, "unsupported_type")
    assert on_disk(still) == []


def test_a_file_that_is_too_large_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path, settings=AppSettings(max_upload_mb=1))
    error(home.upload("big.md", b"x" * (MB + 1)), 413, "too_large")
    assert home.upload("fits.md", b"x" * MB).status_code == 200
    reply = home.client.post(
        "/v1/files", files={"file": ("big.md", b"x" * (2 * MB))}, data={"purpose": "assistants"}
    )
    error(reply, 413, "too_large")
    assert [p.name for p in on_disk(home)] == ["fits.md"]
    home.close()


def test_an_endless_body_without_a_length_is_cut_off(tmp_path: Path) -> None:
    home = Home(tmp_path, settings=AppSettings(max_upload_mb=1))
    sent = 0

    def endless() -> Any:
        nonlocal sent
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.md"\r\n\r\n'
        while sent < 100 * MB:
            sent += 65536
            yield b"x" * 65536

    reply = home.client.post(
        f"/v1/vector_stores/{home.handbook}/upload",
        content=endless(),
        headers={"Content-Type": "multipart/form-data; boundary=B"},
    )
    error(reply, 413, "too_large")
    assert on_disk(home) == []
    error(home.client.post("/v1/chat/completions", content=b"x" * 3 * MB), 413, "too_large")
    home.close()


@pytest.mark.parametrize(
    "request_of",
    [
        lambda c, url: c.post(url),
        lambda c, url: c.post(url, json={"file": "x"}),
        lambda c, url: c.post(url, data={"file": "x"}),
        lambda c, url: c.post(
            url,
            content=b"--B\r\nbroken",
            headers={"Content-Type": "multipart/form-data; boundary=B"},
        ),
        lambda c, url: c.post(url, content=b"x", headers={"Content-Type": "multipart/form-data"}),
    ],
    ids=["nothing", "json", "form", "broken", "no boundary"],
)
def test_an_upload_that_is_none_is_a_bad_request(still: Home, request_of: Any) -> None:
    reply: Response = request_of(still.client, f"/v1/vector_stores/{still.handbook}/upload")
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def test_a_staged_file_is_attached_once_and_can_be_read_back(home: Home) -> None:
    file_id = stage(home)
    url = f"/v1/vector_stores/{home.handbook}/files"
    for _ in range(2):
        reply = home.client.post(url, json={"file_id": file_id})
        assert reply.json()["id"] == file_id and reply.json()["status"] == "in_progress"
    home.take_in()
    completed = home.client.get(url, params={"filter": "completed"}).json()["data"]
    assert {file["filename"] for file in completed} == {"hours.md", "notes.md"}
    reply = home.client.get(f"/v1/files/{file_id}/content")
    assert reply.text == HOURS
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_deleted_upload_is_gone_from_disk_and_from_answers(home: Home) -> None:
    (file,) = home.upload("owls.md", "Owls fly by night over the old mill.").json()["data"]
    home.take_in()
    url = f"/v1/vector_stores/{home.handbook}/files/{file['id']}"
    assert home.client.delete(url).json()["deleted"]
    assert on_disk(home) == []
    error(home.client.get(url), 404, "file_not_found")
    error(home.client.delete(url), 404, "file_not_found")
    home.take_in()
    hits = home.ask("Where do owls fly by night?").json()["knowledge"]["hits"]
    assert "owls.md" not in {hit["filename"] for hit in hits}


def test_deleting_a_file_takes_it_out_of_every_store(home: Home) -> None:
    file_id = stage(home)
    home.client.post(f"/v1/vector_stores/{home.handbook}/files", json={"file_id": file_id})
    assert home.client.delete(f"/v1/files/{file_id}").json()["deleted"]
    assert on_disk(home) == []
    error(home.client.get(f"/v1/files/{file_id}"), 404, "file_not_found")


def test_a_watched_file_cannot_be_deleted_here(home: Home) -> None:
    url = f"/v1/vector_stores/{home.handbook}/files"
    (file,) = home.client.get(url).json()["data"]
    said = error(home.client.delete(f"{url}/{file['id']}"), 409, "file_not_removable")
    assert "hours.md" in said["message"] and str(home.path) not in said["message"]
    assert (home.docs() / "hours.md").exists()


def test_a_link_out_of_a_watched_folder_is_not_followed(home: Home) -> None:
    secret = home.path / "secret.md"
    secret.write_text("the password")
    (home.docs() / "hours.md").unlink()
    (home.docs() / "hours.md").symlink_to(secret)
    (file,) = home.client.get(f"/v1/vector_stores/{home.handbook}/files").json()["data"]
    reply = home.client.get(f"/v1/files/{file['id']}/content")
    error(reply, 404, "file_not_found")


@pytest.mark.parametrize("file_id", ["..", "%2e%2e", "file-..%2f..", "file-" + "0" * 24, ".files"])
def test_an_id_that_is_none_finds_nothing(still: Home, file_id: str) -> None:
    for url in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        assert still.client.get(url).status_code in (404, 405)
    reply = still.client.post(
        f"/v1/vector_stores/{still.handbook}/files", json={"file_id": file_id}
    )
    error(reply, 404, "file_not_found")


def test_stores_are_made_found_and_removed(home: Home) -> None:
    file_id = stage(home)
    made = home.client.post("/v1/vector_stores", json={"name": "second", "file_ids": [file_id]})
    store = made.json()
    assert store["object"] == "vector_store" and store["file_counts"]["in_progress"] == 1
    error(home.client.post("/v1/vector_stores", json={"name": "second"}), 409, "already_exists")
    error(home.client.post("/v1/vector_stores", json={"name": "../x"}), 400, "invalid_value")
    listed = home.client.get("/v1/vector_stores").json()["data"]
    assert {one["name"] for one in listed} == {"handbook", "second"}
    gone = home.client.delete(f"/v1/vector_stores/{store['id']}").json()
    assert gone == {"id": store["id"], "object": "vector_store.deleted", "deleted": True}
    error(home.client.get(f"/v1/vector_stores/{store['id']}"), 404, "vector_store_not_found")


def test_a_list_comes_in_pages(home: Home) -> None:
    for name in ("a", "b"):
        home.add(name)
    url = "/v1/vector_stores"
    seen, after = [], None
    while True:
        params = {"limit": 1, "order": "asc", **({"after": after} if after else {})}
        page = home.client.get(url, params=params).json()
        seen += [one["name"] for one in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert sorted(seen) == ["a", "b", "handbook"]
    error(home.client.get(url, params={"after": "nobody"}), 400, "invalid_value")


def test_a_search_answers_in_openais_shape(still: Home) -> None:
    url = f"/v1/vector_stores/{still.handbook}/search"
    page = still.client.post(url, json={"query": QUESTION, "max_num_results": 1}).json()
    assert page["object"] == "vector_store.search_results.page"
    assert page["search_query"] == [QUESTION] and page["has_more"] is False
    (hit,) = page["data"]
    assert hit["filename"] == "hours.md" and hit["attributes"] == {}
    assert hit["content"] == [{"type": "text", "text": HOURS[hit["start"] : hit["end"]]}]
    high = {"query": QUESTION, "ranking_options": {"score_threshold": 1e9}}
    assert still.client.post(url, json=high).json()["data"] == []
    error(still.client.post(url, json={"query": "  "}), 400, "invalid_value")
    error(
        still.client.post(url, json={"query": QUESTION, "filters": {"a": 1}}), 400, "invalid_value"
    )


def test_uploads_work_over_a_real_connection(home: Home) -> None:
    import httpx

    with listening(home.app()) as url:
        reply = httpx.post(
            f"{url}/v1/vector_stores/{home.handbook}/upload",
            files={"file": ("a.md", b"x" * 3 * MB)},
        )
        assert reply.status_code == 200
