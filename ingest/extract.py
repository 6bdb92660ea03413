"""Bytes -> Parsed, with kreuzberg. The only file that imports kreuzberg; runs in the child process.

Knows formats and nothing of files on disk, limits or knowledge bases. Imports little, so that the
child starts quickly and stays small.
"""

import email
import email.message
import email.policy
import html
import re
from typing import Any

import kreuzberg

from ingest.encoding import clean, decode
from ingest.kinds import EMAIL, HTML, PDF, described, misnamed, recognise
from ingest.reflow import heading_key, join_pages
from kb.errors import Unreadable
from kb.records import Parsed

# Kreuzberg escapes punctuation as if its Markdown would be rendered; a quotation must not hold
# backslashes. Code and formulas are left as they are, and so are bars inside tables.
_ESCAPED = re.compile(r"(```.*?```|`[^`\n]*`|\$\$.*?\$\$)|\\([!-/:-@\[-`{}~])", re.DOTALL)
# Tables come padded to a grid, which fills passages with white space.
_TABLE_LINE = re.compile(r"^\|.*\|$", re.MULTILINE)
_PADDING = re.compile(r" {2,}|-{4,}")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_HEAD = re.compile(r"<head\b.*?</head\s*>", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w-]+)""", re.IGNORECASE)
_NO_TITLE = re.compile(
    r"(?:untitled|document|presentation|slide|book|sheet|title|无标题|文档|\W|\d)*"
    r"|.*\.(?:docx?|pptx?|xlsx?|pdf|html?|txt|md|tex|indd|dvi|qxd|wpd|rtf)",
    re.IGNORECASE,
)


def extract(name: str, data: bytes, *, ocr: str = "") -> Parsed:
    """`ocr` names Tesseract's languages; empty means no OCR. The title may be empty.

    Raises Unreadable with a sentence that names the file.
    """
    kind = recognise(name, data, _guess(data))
    if kind.mime.startswith("image/") and not ocr:
        raise Unreadable(
            "unsupported_type",
            f"{name} is {described(kind.mime)}{misnamed(name, kind.mime)}, and OCR is off",
        )
    if kind.mime == PDF:
        parsed = _pdf(name, data, ocr)
    elif kind.mime == EMAIL:
        parsed = _email(name, data)
    elif kind.mime == HTML:
        parsed = _html(name, _html_text(data, kind.text or ""))
    elif kind.mime:
        bare = data if kind.text is None else clean(kind.text).encode()
        parsed = _markdown(name, bare, kind.mime, ocr)
    else:
        parsed = Parsed(clean(kind.text or ""))
    if not any(c.isalnum() for c in parsed.text):
        why = "its pages are images, and OCR is off" if kind.mime == PDF and not ocr else "no words"
        raise Unreadable("empty", f"{name} holds no text ({why})")
    return parsed


def _guess(data: bytes) -> str | None:
    try:
        return kreuzberg.detect_mime_type(data)
    except RuntimeError:  # kreuzberg's word for "no known format"
        return None


def _pdf(name: str, data: bytes, ocr: str) -> Parsed:
    result = _run(name, data, PDF, ocr, include_document_structure=True)
    nodes = result.document["nodes"] if result.document else []
    contents = [node["content"] for node in nodes]
    headings = {
        heading_key(str(c["text"])): min(max(int(c["level"]), 1), 6)
        for c in contents
        if c.get("node_type") == "heading" and "\n" not in str(c["text"])
    }
    text, starts = join_pages([clean_page(p["content"]) for p in result.pages or ()], headings)
    return Parsed(text, _title(result.metadata.get("title")), starts)


def clean_page(page: str) -> str:
    """Like `clean`, but keeps the marks of hyphens until lines are joined."""
    marked = re.sub(r"[\x02\ufffe](?=\s*\n)", "\xad", page.replace("\r\n", "\n"))
    return clean(marked)


def _html_text(data: bytes, text: str) -> str:
    """HTML may name its own encoding; UTF-8 that says otherwise is still UTF-8."""
    named = _CHARSET.search(data[:4096])
    if named is None:
        return text
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        charset = named.group(1).decode("ascii").lower()
        # GB18030 holds all of GB 2312 and GBK, and pages that name those use more.
        charset = "gb18030" if charset in ("gb2312", "gbk") else charset
        try:
            return data.decode(charset, errors="replace")
        except LookupError:
            return text
    return text


def _html(name: str, text: str) -> Parsed:
    # Kreuzberg would put what the head says into the text as front matter.
    found = _TITLE.search(text)
    title = html.unescape(found.group(1)) if found else ""
    body = _HEAD.sub("", clean(text), count=1)
    return Parsed(_markdown(name, body.encode(), HTML, "").text, _title(title))


def _email(name: str, data: bytes) -> Parsed:
    """Mail is read by Python's own library: kreuzberg decodes UTF-8 bodies only."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    part = message.get_body(("plain", "html"))
    body = "" if part is None else _body(part)
    if part is not None and part.get_content_type() == HTML and body.strip():
        body = _html(name, body).text
    lines = [f"{key}: {message[key]}" for key in ("From", "To", "Date") if message[key]]
    subject = str(message["Subject"] or "").strip()
    head = f"# {subject}\n\n" if subject else ""
    return Parsed(clean(f"{head}{chr(10).join(lines)}\n\n{body}"), _title(subject))


def _body(part: email.message.MIMEPart) -> str:
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    charset = (part.get_content_charset() or "utf-8").lower()
    charset = "gb18030" if charset in ("gb2312", "gbk") else charset
    try:
        return raw.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return decode(raw) or raw.decode("utf-8", errors="replace")


def _markdown(name: str, data: bytes, mime: str, ocr: str) -> Parsed:
    result = _run(name, data, mime, ocr)
    text = _ESCAPED.sub(lambda m: m.group(1) or m.group(2), clean(result.content))
    text = _TABLE_LINE.sub(lambda m: _PADDING.sub(_unpad, m.group()), text)
    return Parsed(text.strip("\n") + "\n", _title(result.metadata.get("title")))


def _unpad(padding: re.Match[str]) -> str:
    return " " if padding.group().startswith(" ") else "---"


def _run(name: str, data: bytes, mime: str, ocr: str, **options: Any) -> kreuzberg.ExtractionResult:
    """Call kreuzberg and translate its errors: its messages may hold paths and library names."""
    config = kreuzberg.ExtractionConfig(
        use_cache=False,  # it would write into the working directory
        output_format="markdown",
        pages=kreuzberg.PageConfig(extract_pages=True),
        ocr=kreuzberg.OcrConfig(backend="tesseract", language=ocr) if ocr else None,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=2),
        **options,
    )
    try:
        return kreuzberg.extract_bytes_sync(data, mime, config=config)
    except kreuzberg.OCRError as error:
        raise Unreadable("ocr", f"{name} needs OCR, which failed for {ocr}: {error}") from error
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError) as error:
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            raise Unreadable("encrypted", f"{name} is protected by a password") from error
        raise Unreadable(
            "corrupt", f"{name} may be damaged: it cannot be opened as {described(mime)}"
        ) from error


def _title(raw: object) -> str:
    """A title worth showing: not what programs write where nobody gave one."""
    title = " ".join(html.unescape(str(raw or "")).split())
    title = re.sub(r"^Microsoft (?:Word|PowerPoint|Excel) - ", "", clean(title))
    return "" if len(title) > 200 or _NO_TITLE.fullmatch(title) else title
