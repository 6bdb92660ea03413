"""Makes documents of several formats for tests."""

import io
import zipfile
from collections.abc import Sequence

import docx
from reportlab.lib import pdfencrypt
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen import canvas

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cf500f0003860180f17d6a9e"
    "0000000049454e44ae426082"
)


def pdf(pages: Sequence[Sequence[str]], *, title: str = "", password: str = "") -> bytes:
    """A PDF; the first line of each page is set larger, as a heading."""
    out = io.BytesIO()
    lock = pdfencrypt.StandardEncryption(password, canPrint=0) if password else None
    page = canvas.Canvas(out, pagesize=A5, encrypt=lock)
    if title:
        page.setTitle(title)
    for lines in pages:
        for number, line in enumerate(lines):
            page.setFont(
                "Helvetica-Bold" if number == 0 else "Helvetica", 18 if number == 0 else 10
            )
            page.drawString(40, 540 - 24 * number, line)
        page.showPage()
    page.save()
    return out.getvalue()


def word(heading: str, paragraph: str) -> bytes:
    document = docx.Document()
    document.add_heading(heading, level=1)
    document.add_paragraph(paragraph)
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Fee", "12 (net)"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.txt", "hello")
    return out.getvalue()


def slides(texts: Sequence[str], picture: str = "") -> bytes:
    """A presentation, a paragraph a slide; `|` parts runs, as PowerPoint does in mid-word."""
    office = "http://schemas.openxmlformats.org"
    link = f"{office}/officeDocument/2006/relationships"
    bundle = f"{office}/package/2006"
    kinds = "application/vnd.openxmlformats-officedocument.presentationml"
    names = (
        f'xmlns:a="{office}/drawingml/2006/main" xmlns:r="{link}"'
        f' xmlns:p="{office}/presentationml/2006/main"'
    )
    numbers = range(1, len(texts) + 1)
    relations = {
        n: f'<Relationship Id="r{n}" Type="{link}/slide" Target="slides/slide{n}.xml"/>'
        for n in numbers
    }
    ids = "".join(f'<p:sldId id="{255 + n}" r:id="r{n}"/>' for n in numbers)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{bundle}/content-types"><Override PartName="/ppt/presentation.xml"'
            f' ContentType="{kinds}.presentation.main+xml"/></Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{bundle}/relationships"><Relationship Id="a"'
            f' Type="{link}/officeDocument" Target="ppt/presentation.xml"/></Relationships>',
        )
        file.writestr(
            "ppt/presentation.xml",
            f"<p:presentation {names}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        )
        file.writestr(
            "ppt/_rels/presentation.xml.rels",
            f'<Relationships xmlns="{bundle}/relationships">{"".join(relations.values())}'
            "</Relationships>",
        )
        for n, text in zip(numbers, texts, strict=True):
            runs = "".join(f"<a:r><a:t>{run}</a:t></a:r>" for run in text.split("|"))
            shape = f"<p:sp><p:txBody><a:p>{runs}</a:p></p:txBody></p:sp>{picture}"
            file.writestr(
                f"ppt/slides/slide{n}.xml",
                f"<p:sld {names}><p:cSld><p:spTree>{shape}</p:spTree></p:cSld></p:sld>",
            )
    return out.getvalue()
