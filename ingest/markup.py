"""OpenDocument and XML -> HTML, by tables of names. Pure.

HTML is what the Markdown reader reads without loss; of these formats it loses formatted words,
lists in tables, accented letters. Knows nothing of Markdown and of files' names.
"""

import html
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_HEADINGS = {f"h{level}": f"h{level}" for level in range(1, 7)}


@dataclass(frozen=True, slots=True)
class Rules:
    """HTML names for a format's own; what is left out; whether the parts of a paragraph (a name, a
    date) are words of their own."""

    tags: Mapping[str, str]
    drop: frozenset[str]
    apart: bool = False


_ODF_TAGS = {
    **_HEADINGS,
    "p": "p",
    "list": "ul",
    "list-item": "li",
    "list-header": "li",
    "table": "table",
    "table-row": "tr",
    "table-cell": "td",
    "covered-table-cell": "td",
    "page": "section",
    "note-body": "p",
}
# Deleted text, numbers of notes, who annotated when, and what belongs to every page alike.
_ODF_NOT_TEXT = frozenset(
    "tracked-changes note-citation date page-number forms sequence-decls settings".split()
)
# Journal articles (JATS) and books: names that mean what HTML's mean. A reference or an author is
# one paragraph, whatever parts it is made of.
_ARTICLE_TAGS = {
    **_HEADINGS,
    **dict.fromkeys("p para ref aff contrib subj-group permissions history pub-date".split(), "p"),
    **{"list": "ul", "itemizedlist": "ul", "list-item": "li", "listitem": "li", "li": "li"},
    **{"table": "table", "tr": "tr", "row": "tr", "td": "td", "th": "td", "entry": "td"},
    **{"preformat": "pre", "programlisting": "pre"},
}
_NUMBERS = frozenset(("journal-id", "issn", "article-id"))
_SECTIONS = frozenset(("sec", "section", "chapter", "part", "app", "ref-list", "abstract"))
_ARTICLES = frozenset(("article", "book", "chapter"))
_BLOCKS = frozenset(("p", "pre", *_HEADINGS))
_ODF = Rules(_ODF_TAGS, _ODF_NOT_TEXT)
_ARTICLE = Rules(_ARTICLE_TAGS, _NUMBERS, apart=True)


def local(node: Element) -> str:
    """An element's name without its namespace."""
    return str(node.tag).rpartition("}")[2]


def get(node: Element, name: str) -> str:
    """An attribute by its name without namespace; empty if there is none."""
    return next((v for k, v in node.attrib.items() if k.rpartition("}")[2] == name), "")


def render(node: Element, rules: Rules, flat: bool = False) -> str:
    """HTML of an element. Unknown elements give way to what they hold; within a paragraph (`flat`)
    every element does, set off by spaces where it would have been a block."""
    name = local(node)
    if name in rules.drop:
        return ""
    if name == "br":
        return "<br>"
    mixed = bool((node.text or "").strip()) or any((child.tail or "").strip() for child in node)
    tag = rules.tags.get(name, "p" if mixed and not flat else "")
    within = flat or mixed or tag in _BLOCKS
    gap = " " if rules.apart and within and not mixed else ""
    parts = [html.escape(node.text or "")]
    for child in node:
        parts += [gap, render(child, rules, within), html.escape(child.tail or "")]
    inner = "".join(parts)
    if not tag:
        return inner
    return f" {inner} " if flat else f"<{tag}>{inner}</{tag}>"


def open_document(data: bytes) -> list[str]:
    """HTML of an OpenDocument text, or of each slide of a presentation.

    Raises zipfile.BadZipFile, KeyError, ElementTree.ParseError, PermissionError (encrypted).
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if b"encryption-data" in _part(archive, "META-INF/manifest.xml"):
            raise PermissionError("encrypted")
        root = ElementTree.fromstring(archive.read("content.xml"))
    for node in root.iter():
        name = local(node)
        if name == "h":
            level = get(node, "outline-level")
            node.tag = f"h{min(max(int(level), 1), 6) if level.isdecimal() else 1}"
        elif name == "frame" and get(node, "class") == "title":
            for paragraph in node.iter():
                paragraph.tag = "h2" if local(paragraph) == "p" else paragraph.tag
        elif name == "line-break":
            node.tag = "br"
        elif name == "tab":
            node.text = " "
        elif name == "s":
            count = get(node, "c")
            node.text = " " * (int(count) if count.isdecimal() else 1)
    bodies = [node for node in root.iter() if local(node) in ("text", "presentation")]
    body = next((node for node in bodies if str(node.tag).find("office") >= 0), root)
    slides = [node for node in body if local(node) == "page"]
    return [render(node, _ODF) for node in slides or [body]]


def office_title(data: bytes) -> str:
    """The title that an Office or OpenDocument file gives itself; raises as `open_document`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        said = _part(archive, "docProps/core.xml") or _part(archive, "meta.xml")
    root = ElementTree.fromstring(said) if said else Element("none")
    return next((node.text or "" for node in root.iter() if local(node) == "title"), "")


def xml(text: str) -> str:
    """HTML of an XML file: an article with its sections and tables, or `name: value` a line.

    Raises ElementTree.ParseError.
    """
    root = ElementTree.fromstring(text)
    if local(root) not in _ARTICLES:
        return "".join(_lines(root))
    _name_headings(root, 1)
    return render(root, _ARTICLE)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(name) if name in archive.namelist() else b""


def _name_headings(node: Element, depth: int) -> None:
    for child in node:
        name = local(child)
        if name in ("article-title", "book-title") and local(node) == "title-group":
            child.tag = "h1"
        elif name == "title":
            child.tag = f"h{min(depth, 6)}"
        elif name == "break":
            child.tag = "br"
        _name_headings(child, depth + (name in _SECTIONS))


def _lines(node: Element) -> list[str]:
    """A paragraph for each element with a value of its own, and for the text of mixed ones."""
    name = local(node)
    mixed = (node.text or "").strip() or any((c.tail or "").strip() for c in node)
    values = [f"{key.rpartition('}')[2]}: {value}" for key, value in node.attrib.items()]
    if mixed:
        values.append(" ".join("".join(node.itertext()).split()))
    line = [f"<p>{html.escape(f'{name}: ' + '; '.join(values))}</p>"] if values else []
    return line if mixed else line + [text for child in node for text in _lines(child)]
