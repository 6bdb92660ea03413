"""The main job on real parts: `vademecum up` with vLLM, the bundled models and the handbook."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.settings import EngineSettings
from kb import shipped
from tests.house import ROOT, House, running, until

SECRET = "The Ibex protocol is opened only with the copper key of Nurse Quill."
QUESTION = "Who has the copper key of the Ibex protocol?"

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def house(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("house")
    (home / "models").symlink_to(models_home / "models")
    shutil.copytree(ROOT / "examples" / "handbook", home / "docs")
    with running(home) as one:
        until(lambda: counts(one)["completed"] >= 15, 120)
        yield one


@pytest.fixture
def page(house: House) -> Iterator[Page]:
    """The page in the system's own Chromium, which must stay on this machine."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        try:
            opened = browser.new_page()
            opened.goto(house.url)
            expect(opened.locator("#state")).to_have_text("ready", timeout=20_000)
            yield opened
        finally:
            browser.close()


def counts(house: House) -> dict[str, int]:
    (store,) = house.client.vector_stores.list().data
    return store.file_counts.model_dump()


def test_a_question_is_answered_with_a_citation_that_can_be_checked(house: House) -> None:
    text, notes, refused = house.ask("How much Zelvorin does an adult take at the start?")
    assert not refused and "8 mg" in text
    source = (house.docs / "zelvorin-dosing.md").read_text(encoding="utf-8")
    assert notes[0]["filename"] == "zelvorin-dosing.md" and notes[0]["verified"]
    assert source[notes[0]["start"] : notes[0]["end"]] == notes[0]["quote"]


def test_a_fresh_home_is_served_by_the_release_that_ships(house: House) -> None:
    (shipped_one,) = shipped.of(EngineSettings().model)
    there = httpx.get(f"{house.url}/admin/releases", timeout=30).json()
    assert there["current"] == shipped_one.id
    assert {one["id"]: one["state"] for one in there["data"]}[shipped_one.id] == "current"


def test_what_the_handbook_does_not_hold_is_refused(house: House) -> None:
    assert house.ask("Who painted the ceiling of the Sistine Chapel?")[2]


def test_the_model_itself_speaks_and_streams(house: House) -> None:
    chunks = house.client.chat.completions.create(
        model="vademecum",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        extra_body={"knowledge": {"enabled": False}},
        stream=True,
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text


def test_the_page_answers_opens_a_citation_and_takes_documents(house: House, page: Page) -> None:
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("dialog", lambda dialog: errors.append(dialog))
    page.fill("#question", "How much Zelvorin does an adult take at the start?")
    page.press("#question", "Enter")
    page.locator(".mark").first.click(timeout=120_000)
    expect(page.locator(".source")).to_contain_text("zelvorin-dosing.md")
    expect(page.locator(".source")).to_contain_text("8 mg once a day")
    evil = "<img src=x onerror=alert(1)>.txt"
    page.set_input_files(
        "#files",
        files=[
            {"name": evil, "mimeType": "text/plain", "buffer": b"<b>Owls</b> sleep by day."},
            {"name": "torn.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4 torn"},
        ],
    )
    lines = page.locator("#uploads li")
    expect(lines.nth(0)).to_have_text(f"{evil}: completed", timeout=60_000)
    expect(lines.nth(1)).to_have_text(re.compile("torn.pdf: failed: .*damaged"), timeout=60_000)
    assert not errors


def test_the_folder_is_followed_and_no_killed_process_loses_a_document(house: House) -> None:
    file, moved = house.docs / "ibex.txt", house.docs / "ibex-rules.txt"
    file.write_text(SECRET, encoding="utf-8")
    until(lambda: "Nurse Quill" in house.ask(QUESTION)[0], 20)
    for words in (("vllm.entrypoints.openai.api_server",), ("ingest.cli",), ("app.serve",)):
        house.child(*words).kill()
        until(lambda: not house.is_ready(), 60)
        until(house.is_ready, 240)
        assert "Nurse Quill" in house.ask(QUESTION)[0]
    file.write_text(SECRET.replace("Quill", "Sorrel"), encoding="utf-8")
    until(lambda: "Sorrel" in house.ask(QUESTION)[0], 20)
    assert "Quill" not in house.ask(QUESTION)[0]
    file.rename(moved)
    until(lambda: house.ask(QUESTION)[1][0]["filename"] == "ibex-rules.txt", 20)
    moved.unlink()
    until(lambda: "Sorrel" not in house.ask(QUESTION)[0], 20)
