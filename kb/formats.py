"""Which files are documents, told by their names alone. Pure.

A first look, so that an upload that can never be read is refused at once. What a file really is,
`ingest.kinds` decides from its content.
"""

from pathlib import PurePosixPath

SUFFIXES = frozenset(
    """.md .markdown .txt .rst .org .tex .asciidoc .adoc .ipynb .html .htm .xhtml .xml .nxml .json
    .jsonl .csv .tsv .pdf .docx .doc .odt .rtf .epub .pptx .ppt .odp .xlsx .xlsm .xls .ods .eml .msg
    .png .jpg .jpeg .tif .tiff""".split()
)


def is_document(name: str) -> bool:
    """Whether a file of this name may be one that can be read as text."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES
