"""What reaches the store: passages that are slices of the text, with pages, titles and order."""

import time
from collections.abc import Sequence

from kb.embedding import FakeEmbedder, Vectors
from tests.ingest.documents import pdf, word
from tests.ingest.homes import Home, eventually, files_of, states


class SlowEmbedder(FakeEmbedder):
    def passages(self, texts: Sequence[str]) -> Vectors:
        time.sleep(0.004 * len(texts))
        return super().passages(texts)


def test_every_passage_is_a_slice_of_its_document_and_pages_are_right(home: Home) -> None:
    pages = [
        ["Part One", "The okapi eats leaves.", "It sleeps little."],
        ["Part Two", "The bongo has stripes.", "It hides well."],
        [],
        ["Part Four", "The manatee swims.", "It is slow."],
    ]
    (home.docs / "animals.pdf").write_bytes(pdf(pages))
    (home.docs / "fees.docx").write_bytes(word("Fees", "The fee is (about) 12 * 3 = 36 euros."))
    home.write("law.md", "# 法\r\n\r\n第一条 试用期不得超过六个月。\r\n" * 30)
    home.sweep()
    kb = home.kb()
    seen = 0
    for file in kb.ledger.all():
        document = kb.store.document(file.id)
        assert document is not None
        for row in kb.store.rows("SELECT * FROM chunks WHERE document_id = ?", (document.id,)):
            assert document.text[row["start"] : row["end"]] == row["text"]
            seen += 1
    assert seen >= 5
    for animal, page in {"okapi": 1, "bongo": 2, "manatee": 4}.items():
        hit = kb.search(animal, 1).hits[0]
        assert (hit.filename, hit.chunk.page) == ("animals.pdf", page)
    assert kb.search("fee", 1).hits[0].chunk.page is None


def test_titles_come_from_the_document_then_its_heading_then_its_name(home: Home) -> None:
    (home.docs / "a.pdf").write_bytes(pdf([["Head", "okapi"]], title="The Statute"))
    (home.docs / "b.pdf").write_bytes(pdf([["Head", "bongo"]], title="Microsoft Word - b.docx"))
    home.write("c d.txt", "manatee")
    home.sweep()
    kb = home.kb()
    titles = {word: kb.search(word, 1).hits[0].title for word in ("okapi", "bongo", "manatee")}
    assert titles == {"okapi": "The Statute", "bongo": "Head", "manatee": "c d"}


def test_a_document_of_nothing_but_headings_is_found(home: Home) -> None:
    text = "## Quarterly okapis\n\n## Outlook\n"
    home.write("slides.md", text)
    home.sweep()
    assert files_of(home.kb(), "okapis") == ["slides.md"]


def test_texts_in_old_encodings_are_found(home: Home) -> None:
    for encoding in ("gb18030", "utf-16"):
        text = f"{encoding}：劳动合同的试用期不得超过六个月。"
        (home.docs / f"{encoding}.txt").write_bytes(text.encode(encoding))
    home.sweep()
    assert sorted(files_of(home.kb(), "试用期")) == ["gb18030.txt", "utf-16.txt"]


def test_a_file_that_a_person_saves_overtakes_a_bulk_load(home: Home) -> None:
    home.embedder = SlowEmbedder()
    kb = home.kb()
    home.write(
        "book.md", "\n".join(f"Sentence {n} of a long book about whales." for n in range(9000))
    )
    with home.following():
        eventually(lambda: states(kb) == {"book.md": "in_progress"})
        time.sleep(0.5)
        home.write("note.md", "a short okapi note")
        eventually(lambda: files_of(kb, "okapi") == ["note.md"], 4)
        assert states(kb)["book.md"] == "in_progress"


def test_many_small_files_share_embedding_calls_and_commits(home: Home) -> None:
    calls: list[int] = []

    class Counting(FakeEmbedder):
        def passages(self, texts: Sequence[str]) -> Vectors:
            calls.append(len(texts))
            return super().passages(texts)

    for n in range(200):
        home.write(f"{n}.md", f"animal number {n}")
    home.sweep(embedder=Counting())
    assert home.kb().ledger.counts() == {"completed": 200}
    assert sum(calls) == 200
    assert len(calls) <= 50  # how many were read when a call began is a matter of the machine
