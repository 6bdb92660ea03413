"""Every format that is promised is read, and where a library loses words of one, we do not."""

import io
import json
import zipfile
from collections.abc import Mapping

import docx
import pytest

from ingest.formats import read
from kb.errors import Unreadable
from tests.ingest.documents import pdf, slides, word

ODF = "application/vnd.oasis.opendocument."
NAMES = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
    ' xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"'
    ' xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0"'
)


def packed(parts: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return out.getvalue()


def open_document(kind: str, body: str) -> bytes:
    content = f"<office:document-content {NAMES}><office:body>{body}</office:body>"
    return packed({"mimetype": ODF + kind, "content.xml": f"{content}</office:document-content>"})


def book() -> bytes:
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:'
            'container" version="1.0"><rootfiles><rootfile full-path="b.opf" media-type='
            '"application/oebps-package+xml"/></rootfiles></container>',
            "b.opf": '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata'
            ' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Okapi tales</dc:title>'
            '</metadata><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
            '</manifest><spine><itemref idref="a"/></spine></package>',
            "a.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head>'
            "<body><h1>One</h1><p>The okapi 试用期.</p></body></html>",
        }
    )


def workbook() -> bytes:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    link = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    bundle = "http://schemas.openxmlformats.org/package/2006"
    return packed(
        {
            "[Content_Types].xml": f'<Types xmlns="{bundle}/content-types"><Default Extension='
            f'"rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
            f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}.worksheet+xml"/>'
            "</Types>",
            "_rels/.rels": f'<Relationships xmlns="{bundle}/relationships"><Relationship Id="a"'
            f' Type="{link}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{link}"><sheets><sheet'
            ' name="Fees" sheetId="1" r:id="a"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{bundle}/relationships">'
            f'<Relationship Id="a" Type="{link}/worksheet" Target="worksheets/sheet1.xml"/>'
            "</Relationships>",
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData><row r="1"><c r="A1"'
            ' t="inlineStr"><is><t>okapi 试用期</t></is></c><c r="B1"><v>12</v></c></row>'
            "</sheetData></worksheet>",
            "xl/comments1.xml": f'<comments xmlns="{main}"><commentList><comment ref="A1"><text>'
            "<t>a noted bongo</t></text></comment></commentList></comments>",
        }
    )


PARAGRAPH = "<text:p>The <text:span>ok<text:span>api</text:span></text:span> 试用期.</text:p>"
FILES = {
    "a.pdf": pdf([["Heading", "The okapi."]]),
    "a.docx": word("Heading", "The okapi 试用期."),
    "a.pptx": slides(["The okapi 试用期."]),
    "a.xlsx": workbook(),
    "a.html": "<h1>One</h1><p>The okapi 试用期.</p>".encode(),
    "a.md": "# One\n\nThe okapi 试用期.\n".encode(),
    "a.txt": "The okapi 试用期.".encode(),
    "a.csv": "animal,word\nokapi,试用期\n".encode(),
    "a.eml": "From: a@b.org\nSubject: One\nContent-Type: text/plain; charset=utf-8\n"
    "Content-Transfer-Encoding: 8bit\n\nThe okapi 试用期.\n".encode(),
    "a.epub": book(),
    "a.odt": open_document("text", f"<office:text>{PARAGRAPH}</office:text>"),
    "a.odp": open_document(
        "presentation",
        "<office:presentation><draw:page><draw:frame><draw:text-box>"
        f"{PARAGRAPH}</draw:text-box></draw:frame></draw:page></office:presentation>",
    ),
    "a.rtf": rb"{\rtf1\ansi\ansicpg936 The okapi \u35797?\u29992?\u26399?.\par}",
    "a.json": json.dumps({"animal": "okapi", "word": "试用期", "e": '\x00"\\'}).encode(),
    "a.xml": "<list><item><animal>okapi</animal><w n='7'>&#35797;用期</w></item></list>".encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_promised_format_is_read_whatever_the_file_is_called(name: str) -> None:
    for called in (name, name.upper()):
        text = read(called, FILES[name]).text
        assert "okapi" in text
        assert "试用期" in text or name == "a.pdf"


def test_slides_keep_words_whole_and_are_pages_that_can_be_cited() -> None:
    parsed = read("a.pptx", slides(["One|st", "Half| a word", "Third"]))
    assert len(parsed.pages) == 3
    starts = [parsed.text[at:].split("\n")[0] for at in parsed.pages]
    assert starts == ["Onest", "Half a word", "Third"]


def test_a_damaged_picture_does_not_cost_the_slide() -> None:
    assert "okapi" in read("a.pptx", slides(["The okapi"], picture="<p:pic><p:blip/></p:pic>")).text


def test_formatted_words_lists_and_tables_of_open_documents_are_kept() -> None:
    item = "<text:list><text:list-item>{}</text:list-item></text:list>"
    row = f"<table:table-row><table:table-cell>{item}</table:table-cell></table:table-row>"
    body = f'<text:h text:outline-level="2">H</text:h><table:table>{row}</table:table>'
    data = open_document("text", f"<office:text>{body.format(PARAGRAPH)}</office:text>")
    assert read("a.odt", data).text.startswith("## H\n\n| The okapi 试用期. |")


def test_notes_on_cells_are_read() -> None:
    assert read("a.xlsx", workbook()).text.endswith("A1: a noted bongo\n")


def test_an_article_in_xml_keeps_sentences_and_sections() -> None:
    page = (
        "<article><front><article-meta><title-group><article-title>Milk</article-title>"
        "</title-group></article-meta></front><body><sec><title>Gas</title><p>Much N<sub>2</sub>O"
        " by Eug&#xe8;ne [<xref>4</xref>].</p><sec><title>Cows</title><table><tr><td>a</td>"
        "<td>b</td></tr></table></sec></sec></body></article>"
    )
    text = read("a.nxml", page.encode()).text
    assert "# Milk\n\n## Gas\n\nMuch N2O by Eugène [4].\n\n### Cows\n\n| a | b |" in text


def test_broken_xml_is_still_a_text() -> None:
    assert read("a.xml", b"<a><b>okapi</a>").text == "<a><b>okapi</a>"


def test_escaped_json_loses_nothing_but_its_escapes() -> None:
    value = {"试用期": '六\U0001f600个"\\u8bd5\\月\n', "half": "\ud83d", "c": "\x1b"}
    text = read("a.json", json.dumps(value).encode()).text
    assert json.loads(text) == value
    assert "试用期" in text and "六\U0001f600个" in text


def test_a_picture_leaves_no_path_in_the_text() -> None:
    document = docx.Document()
    document.add_paragraph("The okapi ![not a picture")
    out = io.BytesIO()
    document.save(out)
    assert "![not a picture" in read("a.docx", out.getvalue()).text
    page = b'<p>The okapi <img src="x/y.png" alt="A bongo"> <img src="z.png"></p>'
    text = read("a.html", page).text
    assert "A bongo" in text and "png" not in text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "第十九条 劳动合同期限三个月以上不满一年的，试用期不得超过一个月。"),
        (
            "big5",
            "第十九條 勞動契約期間三個月以上未滿一年者，試用期間不得超過一個月。甲方應通知乙方。",
        ),
        ("utf-16", "第十九条 the trial period 试用期"),
        ("utf-16-le", "Article 19: the trial period may not exceed one month.\n" * 3),
        ("utf-16-be", "Article 19: the trial period may not exceed one month.\n" * 3),
        ("cp1252", "Der Arbeitgeber zahlt – spätestens am Ende – 12 € Gebühr für „Prüfung“. " * 3),
    ],
)
def test_old_encodings_are_read_in_text_tables_and_pages(encoding: str, text: str) -> None:
    line = text.strip().split("\n")[0].strip()
    assert line in read("a.txt", text.encode(encoding)).text
    for opening, name in (("<html><body><p>", "a.html"), ("a;b\n", "a.csv")):
        assert line in read(name, f"{opening}{text}".encode(encoding)).text


def test_an_encrypted_open_document_says_so() -> None:
    data = packed(
        {
            "mimetype": ODF + "text",
            "META-INF/manifest.xml": "<manifest:encryption-data/>",
            "content.xml": "\x07",
        }
    )
    with pytest.raises(Unreadable, match=r"^a\.odt is protected by a password$"):
        read("a.odt", data)


@pytest.mark.parametrize("name", ["a.pptx", "a.odt", "a.odp", "a.xlsx", "a.docx"])
def test_a_torn_archive_fails_by_name(name: str) -> None:
    for data in (FILES[name][:-40], FILES[name][: len(FILES[name]) // 2]):
        with pytest.raises(Unreadable, match=rf"^{name} (may be|is) damaged"):
            read(name, data)
