"""Files become text: exactly where they are text, as Markdown where they are documents, and with
one clear sentence where they are neither. Real kreuzberg, in its real child process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingest.parse import Parser, ParserDown
from ingest.settings import IngestSettings
from kb.errors import Unreadable
from tests.ingest.documents import PNG, archive, pdf, word
from tests.ingest.homes import eventually

CHINESE = "第十九条 劳动合同期限三个月以上不满一年的，试用期不得超过一个月。"


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    made = Parser(IngestSettings(ocr=False))
    yield made
    made.close()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030"])
@pytest.mark.parametrize(
    "text", [CHINESE, "试用期", "Trial period (试用期): 6 months\n", CHINESE * 999]
)
def test_text_is_kept_exactly_whatever_its_encoding(
    parser: Parser, encoding: str, text: str
) -> None:
    raw = text.encode(encoding)
    raw = b"\xfe\xff" + raw if encoding == "utf-16-be" else raw
    assert parser.parse("a.txt", raw).text == text


def test_only_line_ends_and_controls_change(parser: Parser) -> None:
    raw = "\ufeffa\r\nb\rc\x00\x0b d\t*e* \\_ &amp; e\u0301\n\n\n# f  \n".encode()
    expected = "a\nb\nc d\t*e* \\_ &amp; e\u0301\n\n\n# f  \n"
    for name in ("a.txt", "a.md", "README"):
        assert parser.parse(name, raw).text == expected


def test_a_torn_character_does_not_turn_utf8_into_something_else(parser: Parser) -> None:
    assert parser.parse("a.txt", CHINESE.encode() + b"\xe4\xb8").text.startswith(CHINESE)


@pytest.mark.parametrize("before", [250_000, 300_000, 600_000])
def test_letters_that_come_late_in_a_large_text_decide_about_its_encoding(
    parser: Parser, before: int
) -> None:
    text = "Open at nine. \n" * (before // 15) + CHINESE * 20
    for encoding in ("gb18030", "utf-8"):
        assert parser.parse("a.txt", text.encode(encoding)).text == text


def test_html_in_an_old_encoding_is_read(parser: Parser) -> None:
    page = (
        '<html><head><meta charset="gb2312"><title>规定 &amp; 办法</title></head>'
        "<body><h1>劳动合同</h1><p>试用期不得超过六个月！</p></body></html>"
    )
    parsed = parser.parse("a.html", page.encode("gb18030"))
    assert parsed.text == "# 劳动合同\n\n试用期不得超过六个月！\n"
    assert parsed.title == "规定 & 办法"


def test_mail_in_an_old_encoding_is_read(parser: Parser) -> None:
    mail = (
        b"From: a@example.org\nSubject: =?gb2312?B?" + b"zajWqg==" + b"?=\n"
        b"Content-Type: text/plain; charset=gb2312\nContent-Transfer-Encoding: 8bit\n\n"
        + CHINESE.encode("gb18030")
    )
    parsed = parser.parse("a.eml", mail)
    assert parsed.text.startswith("# 通知\n")
    assert CHINESE in parsed.text
    assert parsed.title == "通知"


def test_word_documents_keep_headings_and_tables_without_escapes(parser: Parser) -> None:
    parsed = parser.parse("a.docx", word("Fees!", "Fees (2024) are due. See #3."))
    assert parsed.text.startswith("# Fees!\n\nFees (2024) are due. See #3.\n\n| Fee | 12 (net) |")


def test_csv_becomes_a_table(parser: Parser) -> None:
    parsed = parser.parse("a.csv", "姓名,地址\n张三,北京\n".encode("gb18030"))
    assert parsed.text == "| 姓名 | 地址 |\n| --- | --- |\n| 张三 | 北京 |\n"


def test_pages_start_where_their_text_starts(parser: Parser) -> None:
    pages = [["Part One", "Alpha."], [], ["Part Two", "Gamma."], ["Part Three", "Delta."]]
    parsed = parser.parse("a.pdf", pdf(pages, title="The Statute"))
    assert parsed.title == "The Statute"
    assert len(parsed.pages) == 4
    starts = [parsed.pages[i] for i in (0, 2, 3)]
    assert [parsed.text[a:].split("\n")[0] for a in starts] == [
        "# Part One",
        "# Part Two",
        "# Part Three",
    ]


def test_content_decides_what_a_file_is(parser: Parser) -> None:
    data = pdf([["Heading", "A PDF whatever its name says."]])
    assert "whatever its name says" in parser.parse("a.txt", data).text
    assert "whatever its name says" in parser.parse("a.docx", data).text


@pytest.mark.parametrize(
    ("name", "data", "code", "words"),
    [
        ("empty.pdf", b"", "empty", "is empty"),
        ("blank.txt", b" \r\n\t ", "empty", "is empty"),
        ("scan.pdf", pdf([[]]), "empty", "OCR is off"),
        ("torn.pdf", pdf([["a", "b"]])[:300], "corrupt", "cannot be opened as a PDF"),
        ("torn.docx", word("a", "b")[:900], "corrupt", "Word document"),
        ("notes.docx", b"\x01\x02\x03\x04" * 50, "corrupt", "not a Word document"),
        ("secret.pdf", pdf([["a"]], password="x"), "encrypted", "password"),
        (
            "secret.xlsx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "encrypted",
            "password",
        ),
        ("photo.pdf", PNG, "unsupported_type", "not a PDF as its name says"),
        ("photo.png", PNG, "unsupported_type", "is an image (png), and OCR is off"),
        ("files.zip", archive(), "unsupported_type", "archive"),
        ("program.bin", bytes(range(256)) * 8, "unsupported_type", "cannot be read as text"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence_with_the_name(
    parser: Parser, name: str, data: bytes, code: str, words: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        parser.parse(f"some/folder/{name}", data)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{name} ")
    assert words in str(caught.value)
    assert "/folder/" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_is_no_files_fault(parser: Parser, number: int) -> None:
    with pytest.raises(ParserDown, match=r"was killed while it read b\.txt"):
        _ends_with(parser, number)
    assert parser.parse("c.txt", b"third").text == "third"


def test_a_child_that_crashes_fails_one_file_and_the_next_is_read(parser: Parser) -> None:
    with pytest.raises(Unreadable, match=r"b\.txt made the reader crash") as caught:
        _ends_with(parser, signal.SIGSEGV)
    assert caught.value.code == "corrupt"
    assert parser.parse("c.txt", b"third").text == "third"


def _ends_with(parser: Parser, number: int) -> None:
    """A signal meets the child while a file is with it."""
    assert parser.parse("a.txt", b"first").text == "first"
    assert parser.pid is not None
    os.kill(parser.pid, signal.SIGSTOP)  # so that the file is still with the child when it dies
    killer = threading.Timer(0.3, _kill, (parser.pid, number))
    killer.start()
    try:
        parser.parse("b.txt", b"second")
    finally:
        killer.join()


def test_a_hanging_child_fails_one_file_in_time_and_the_next_is_read() -> None:
    parser = Parser(IngestSettings(parse_seconds=0.5))
    parser.parse("a.txt", b"first")
    assert parser.pid is not None
    os.kill(parser.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(Unreadable, match=r"b\.txt could not be read within 0\.5 seconds") as caught:
        parser.parse("b.txt", b"x" * 2**20)
    assert time.monotonic() - started < 3
    assert caught.value.code == "timeout"
    assert parser.parse("c.txt", b"third").text == "third"
    parser.close()


def test_a_parser_that_is_closed_while_its_child_starts_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = Parser(IngestSettings())
    real = subprocess.Popen
    children: list[subprocess.Popen[bytes]] = []

    def closed_meanwhile(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(real(*arguments, **options))
        parser.close()  # from another thread, in life
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", closed_meanwhile)
    with pytest.raises(ParserDown):
        parser.parse("a.txt", b"x")
    assert [child.poll() for child in children] == [-signal.SIGKILL]


def test_a_file_that_needs_too_much_memory_fails_alone() -> None:
    parser = Parser(IngestSettings(parse_memory_mb=200))
    with pytest.raises(Unreadable, match=r"big\.txt .*200 MB"):
        parser.parse("big.txt", ("试" * 20_000_000).encode())
    assert parser.parse("c.txt", b"third").text == "third"
    parser.close()


def test_a_small_file_that_holds_too_much_text_fails_alone() -> None:
    parser = Parser(IngestSettings(max_text_mb=1))
    with closing(parser):
        bomb = word("Fees", "An okapi. " * 150_000)
        assert len(bomb) < 100_000
        with pytest.raises(
            Unreadable, match=r"^bomb\.docx holds \d MB of text; at most 1"
        ) as caught:
            parser.parse("bomb.docx", bomb)
        assert caught.value.code == "too_large"
        just = "试" * (2**20 // 3)
        assert parser.parse("c.txt", just.encode()).text == just
        with pytest.raises(Unreadable, match="MB of text"):
            parser.parse("c.txt", (just + "试").encode())


def test_a_module_among_the_documents_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "kreuzberg.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    parser = Parser(IngestSettings())
    assert parser.parse("a.html", b"<p>Open at nine.</p>").text
    parser.close()
    assert not ran.exists()


def test_the_child_dies_with_its_parent() -> None:
    program = (
        "import os, signal; from ingest.parse import Parser; from ingest.settings import *;"
        "p = Parser(IngestSettings()); p.parse('a.txt', b'x'); print(p.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    child = int(done.stdout)
    eventually(lambda: _is_dead(child))


def test_the_child_stays_light() -> None:
    program = (
        "import sys; import ingest.parse_child, ingest.formats;"
        "print([m for m in ('torch', 'numpy', 'faiss', 'kb.embedding') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"[]"


def _kill(pid: int, number: int) -> None:
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except OSError:
        return True
