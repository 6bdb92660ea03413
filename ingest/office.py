"""Parts of Office files that kreuzberg leaves out or breaks -> HTML: whole presentations, charts of
documents, notes on cells.

A presentation is read slide by slide: text, tables, charts, notes, comments. Pictures hold no text,
so damage in one does no harm. Knows nothing of Markdown.
"""

import html
import io
import posixpath
import re
import zipfile
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ingest.markup import Rules, get, local, render

_RULES = Rules(
    {"p": "p", "h2": "h2", "tbl": "table", "tr": "tr", "tc": "td"},
    frozenset(("tableStyleId", "pic")),
)
# What newer Excels tell older ones in front of a note.
_OLD_EXCEL = re.compile(r"\[Threaded comment\].*?Comment:\s*", re.DOTALL)
_TITLES = ("title", "ctrTitle")


def slides(data: bytes) -> list[str]:
    """HTML of each slide, in order. Raises zipfile.BadZipFile, KeyError, ElementTree.ParseError."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = "ppt/presentation.xml"
        targets = _targets(archive, start)
        order = [
            targets[get(node, "id")]
            for node in _sld_ids(ElementTree.fromstring(archive.read(start)))
            if get(node, "id") in targets
        ]
        return [_slide(archive, name) for name in order]


def charts(data: bytes) -> list[str]:
    """HTML of each chart of any Office document, from the values they keep for showing."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [n for n in archive.namelist() if "/charts/chart" in n and n.endswith(".xml")]
        return [_chart(archive, name) for name in sorted(names)]


def notes(data: bytes) -> list[str]:
    """HTML of what people noted on a workbook's cells, a paragraph each, in one piece or none."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [n for n in archive.namelist() if re.fullmatch(r"xl/(.*/)?comments\d*\.xml", n)]
        roots = [ElementTree.fromstring(archive.read(name)) for name in sorted(names)]
    cells = [node for root in roots for node in root.iter() if local(node) == "comment"]
    told = [f"{get(cell, 'ref')}: {_OLD_EXCEL.sub('', ''.join(cell.itertext()))}" for cell in cells]
    return ["".join(f"<p>{html.escape(line)}</p>" for line in told)] if told else []


def _sld_ids(root: Element) -> list[Element]:
    # `id` without a namespace is the number, `r:id` the relation: only the latter leads somewhere.
    out = []
    for node in root.iter():
        if local(node) == "sldId":
            node.attrib = {k: v for k, v in node.attrib.items() if "}" in k}
            out.append(node)
    return out


def _slide(archive: zipfile.ZipFile, name: str) -> str:
    root = ElementTree.fromstring(archive.read(name))
    parts = [_shapes(root)]
    for target in _targets(archive, name).values():
        if target not in archive.namelist():
            continue  # a damaged or external part; the slide's own text is there
        if "/charts/chart" in target:
            parts.append(_chart(archive, target))
        elif "/notesSlides/" in target:
            parts.append(_shapes(ElementTree.fromstring(archive.read(target)), only="body"))
        elif "/comments/" in target:
            parts.append(_comments(ElementTree.fromstring(archive.read(target))))
    return "".join(parts)


def _shapes(root: Element, only: str = "") -> str:
    """The text of a slide's shapes and tables; `only` names the one kind of placeholder wanted."""
    _forget_fallbacks(root)
    for shape in root.iter():
        if local(shape) != "sp":
            continue
        kinds = [get(node, "type") for node in shape.iter() if local(node) == "ph"]
        if (only and only not in kinds) or "sldNum" in kinds:
            shape.clear()
        elif set(kinds) & set(_TITLES):
            for node in shape.iter():
                node.tag = "h2" if local(node) == "p" else node.tag
    return render(root, _RULES)


def _forget_fallbacks(root: Element) -> None:
    """What is there twice, for old and new readers, is read once."""
    for node in root.iter():
        if local(node) == "AlternateContent":
            for child in [c for c in node if local(c) == "Fallback"][: len(node) - 1]:
                node.remove(child)


def _comments(root: Element) -> str:
    return "".join(
        f"<p>{html.escape(''.join(node.itertext()))}</p>"
        for node in root.iter()
        if local(node) in ("text", "txBody")
    )


def _chart(archive: zipfile.ZipFile, name: str) -> str:
    """Titles as paragraphs, series as the columns of a table."""
    root = ElementTree.fromstring(archive.read(name))
    titles = ["".join(n.itertext()).strip() for n in root.iter() if local(n) == "rich"]
    series = [node for node in root.iter() if local(node) == "ser"]
    columns = [["", *_points(series[0], "cat", "xVal")]] if series else []
    columns += [[" ".join(_points(s, "tx")), *_points(s, "val", "yVal")] for s in series]
    height = max(map(len, columns), default=0)
    rows = [[c[i] if i < len(c) else "" for c in columns] for i in range(height)]
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    table = f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>" if cells else ""
    return "".join(f"<p>{html.escape(title)}</p>" for title in titles if title) + table


def _points(series: Element, *names: str) -> list[str]:
    parts = [part for part in series if local(part) in names]
    return [v.text or "" for part in parts for v in part.iter() if local(v) == "v"]


def _targets(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """Relation id -> part, for everything a part refers to inside the archive."""
    folder, base = posixpath.split(name)
    relations = f"{folder}/_rels/{base}.rels"
    if relations not in archive.namelist():
        return {}
    return {
        get(node, "Id"): posixpath.normpath(posixpath.join(folder, get(node, "Target"))).lstrip("/")
        for node in ElementTree.fromstring(archive.read(relations))
        if get(node, "TargetMode") != "External"
    }
