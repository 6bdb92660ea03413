"""Bytes -> Parsed: each format by the reader that loses least of it. Runs in the child process.

Most formats go through kreuzberg (`ingest.extract`); where it loses text, they become HTML first.
Knows nothing of files on disk, limits or knowledge bases.
"""

import html
import re
import zipfile
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import ParseError

from ingest import extract, mail, markup, office, scans
from ingest.kinds import (
    EMAIL,
    EXCEL,
    HTML,
    JSON,
    ODP,
    ODT,
    OUTLOOK,
    PDF,
    PPTX,
    WORD,
    XML,
    described,
    misnamed,
    recognise,
)
from ingest.reflow import join_pages
from ingest.scans import Ocr, Reading
from ingest.tidy import join, tidy, title, unescape_json
from kb.encoding import clean
from kb.errors import Unreadable
from kb.records import Parsed

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_HEAD = re.compile(r"<head\b.*?</head\s*>", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(
    rb"""(?:<meta[^>]+charset|<\?xml[^>]+encoding)\s*=\s*["']?\s*([\w-]+)""", re.IGNORECASE
)


def read(
    name: str, data: bytes, *, ocr: Ocr | None = None, progress: Callable[[], None] = lambda: None
) -> Parsed:
    """The title may be empty. `progress` is called after each scanned page.

    Raises Unreadable with a sentence that names the file.
    """
    ocr = ocr or Ocr()
    kind = recognise(name, data, extract.guess(data))
    if kind.mime == PDF:
        parsed = _pdf(name, data, ocr, progress)
    elif kind.mime.startswith("image/"):
        parsed = _image(name, data, kind.mime, ocr)
    elif kind.text is None:
        parsed = _BINARY.get(kind.mime, _document)(name, data, kind.mime)
    elif kind.mime == EMAIL:
        parsed = _email(name, data)
    else:
        parsed = _text(name, data, kind.mime, kind.text)
    if not any(c.isalnum() for c in parsed.text):
        raise Unreadable("empty", f"{name} holds no text ({_why(kind.mime, ocr)})")
    return parsed


def _why(mime: str, ocr: Ocr) -> str:
    if mime != PDF and not mime.startswith("image/"):
        return "no words"
    return f"its pages are images, and {ocr.off or 'no word in them could be read'}"


def _pdf(name: str, data: bytes, ocr: Ocr, progress: Callable[[], None]) -> Parsed:
    found = extract.pdf(name, data)
    pages = [clean_page(page) for page in found.pages]
    wanted = scans.images(pages) if ocr.languages else []
    if len(wanted) > ocr.pages:
        raise Unreadable(
            "too_large",
            f"{name} has {len(wanted)} scanned pages; at most {ocr.pages} are read (ocr_pages)",
        )
    images = extract.page_images(name, data, wanted)
    for index, image in zip(wanted, images, strict=True):
        pages[index] = scans.kept(pages[index], _readings(name, image, "image/png", ocr))
        progress()
    text, starts = join_pages(pages, found.headings)
    return Parsed(text, title(found.title), starts)


def clean_page(page: str) -> str:
    """Like `clean`, but keeps the marks of hyphens until lines are joined."""
    marked = re.sub(r"[\x02\ufffe](?=\s*\n)", "\xad", page.replace("\r\n", "\n"))
    return clean(marked)


def _image(name: str, data: bytes, mime: str, ocr: Ocr) -> Parsed:
    if ocr.off:
        said = f"{name} is {described(mime)}{misnamed(name, mime)}, and {ocr.off}"
        raise Unreadable("unsupported_type", said)
    page = scans.kept("", _readings(name, data, mime, ocr))
    return Parsed(join_pages([page], {})[0])


def _readings(name: str, image: bytes, mime: str, ocr: Ocr) -> list[Reading]:
    """What was read of an image: once, or twice where that was unsure."""
    first = extract.read_image(name, image, mime, ocr, extract.COLUMNS)
    if first.is_sure:
        return [first]
    return [first, extract.read_image(name, image, mime, ocr, extract.TURNED)]


def _document(name: str, data: bytes, mime: str) -> Parsed:
    found = extract.document(name, data, mime)
    return Parsed(tidy(found.markdown), title(found.metadata.get("title")))


def _outlook(name: str, data: bytes, mime: str) -> Parsed:
    found = extract.document(name, data, mime)
    message = mail.outlook(found.markdown, found.metadata)
    return Parsed(tidy(f"{message.head}\n\n{message.body}"), title(message.subject))


def _word(name: str, data: bytes, mime: str) -> Parsed:
    """Kreuzberg leaves out charts; their words and figures follow the text."""
    return _with(name, data, mime, office.charts)


def _excel(name: str, data: bytes, mime: str) -> Parsed:
    """Kreuzberg leaves out what people noted on cells; it follows the sheets."""
    return _with(name, data, mime, office.notes)


def _with(name: str, data: bytes, mime: str, more: Callable[[bytes], list[str]]) -> Parsed:
    parsed = _document(name, data, mime)
    added = [_document(name, m.encode(), HTML).text for m in _html_of(name, data, mime, more)]
    return Parsed(f"{join([parsed.text, *added])[0]}\n", parsed.title) if added else parsed


def _slides(name: str, data: bytes, mime: str) -> Parsed:
    return _converted(name, data, mime, office.slides)


def _open_document(name: str, data: bytes, mime: str) -> Parsed:
    return _converted(name, data, mime, markup.open_document)


def _converted(name: str, data: bytes, mime: str, convert: Callable[[bytes], list[str]]) -> Parsed:
    """`convert` gives the HTML of each slide, or of a document that knows no pages."""
    pages = _html_of(name, data, mime, convert)
    said = "".join(_html_of(name, data, mime, lambda data: [markup.office_title(data)]))
    text, starts = join([_document(name, page.encode(), HTML).text for page in pages])
    return Parsed(f"{text}\n", title(said), starts if len(pages) > 1 else ())


def _html_of(name: str, data: bytes, mime: str, convert: Callable[[bytes], list[str]]) -> list[str]:
    try:
        return convert(data)
    except PermissionError as error:
        raise Unreadable("encrypted", f"{name} is protected by a password") from error
    except (zipfile.BadZipFile, KeyError, ParseError, RecursionError, EOFError) as error:
        raise Unreadable(
            "corrupt", f"{name} may be damaged: it cannot be opened as {described(mime)}"
        ) from error


def _text(name: str, data: bytes, mime: str, text: str) -> Parsed:
    if mime == HTML:
        return _html(name, _declared(data, text))
    if mime == XML:
        return _xml(name, _declared(data, text))
    if mime == JSON:
        return Parsed(unescape_json(clean(text)))
    return _document(name, clean(text).encode(), mime) if mime else Parsed(clean(text))


def _html(name: str, text: str) -> Parsed:
    # Kreuzberg would put what the head says into the text as front matter.
    found = _TITLE.search(text)
    named = html.unescape(found.group(1)) if found else ""
    body = _HEAD.sub("", clean(text), count=1)
    return Parsed(_document(name, body.encode(), HTML).text, title(named))


def _xml(name: str, text: str) -> Parsed:
    try:
        body = markup.xml(clean(text))
    except (ParseError, RecursionError):  # broken markup is still a text
        return Parsed(clean(text))
    return Parsed(_document(name, body.encode(), HTML).text)


def _declared(data: bytes, text: str) -> str:
    """HTML and XML may name their own encoding; UTF-8 that says otherwise is still UTF-8."""
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


def _email(name: str, data: bytes) -> Parsed:
    message = mail.read(data)
    body = message.body
    if message.is_html and body.strip():
        body = _html(name, body).text
    return Parsed(clean(f"{message.head}\n\n{body}"), title(message.subject))


_BINARY: Mapping[str, Callable[[str, bytes, str], Parsed]] = {
    WORD: _word,
    EXCEL: _excel,
    OUTLOOK: _outlook,
    PPTX: _slides,
    ODT: _open_document,
    ODP: _open_document,
}
