"""What a reader made of a document -> Markdown and titles worth quoting. Pure.

Knows nothing of formats.
"""

import html
import re

from kb.encoding import clean

# Kreuzberg escapes punctuation as if its Markdown would be rendered; a quotation must not hold
# backslashes. Code and formulas are left as they are, and so are bars inside tables.
_ESCAPED = re.compile(r"(```.*?```|`[^`\n]*`|\$\$.*?\$\$)|\\([!-/:-@\[-`{}~])", re.DOTALL)
# Tables come padded to a grid, which fills passages with white space.
_TABLE_LINE = re.compile(r"^\|.*\|$", re.MULTILINE)
_PADDING = re.compile(r" {2,}|-{4,}")
# A picture's place inside the document tells a reader nothing; what it is said to show does.
_PICTURE = re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)")
_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)((?:\\u[0-9a-fA-F]{4})+)")
_NO_TITLE = re.compile(
    r"(?:untitled|powerpoint|document|presentation|slide|book|sheet|title|无标题|文档|\W|\d)*"
    r"|.*\.(?:docx?|pptx?|xlsx?|pdf|html?|txt|md|tex|indd|dvi|qxd|wpd|rtf)",
    re.IGNORECASE,
)


def tidy(markdown: str) -> str:
    """Without escapes, padding and pictures; ends with one line end."""
    text = _PICTURE.sub(lambda m: m.group(1), clean(markdown))
    text = _ESCAPED.sub(lambda m: m.group(1) or m.group(2), text)
    text = _TABLE_LINE.sub(lambda m: _PADDING.sub(_unpad, m.group()), text)
    return text.strip("\n") + "\n"


def title(raw: object) -> str:
    """A title worth showing: not what programs write where nobody gave one."""
    out = " ".join(html.unescape(str(raw or "")).split())
    out = re.sub(r"^Microsoft (?:Word|PowerPoint|Excel) - ", "", clean(out))
    return "" if len(out) > 200 or _NO_TITLE.fullmatch(out) else out


def unescape_json(text: str) -> str:
    """JSON whose letters beyond ASCII are escaped holds no word that a search could find."""
    return _ESCAPE.sub(lambda m: m.group(1) + _letters(m.group(2)), text)


def join(pages: list[str]) -> tuple[str, tuple[int, ...]]:
    """Pages that are Markdown already -> the text, and the offset at which each page starts."""
    text = ""
    starts = []
    for page in pages:
        body = page.strip("\n")
        text += "\n\n" if text and body else ""
        starts.append(len(text))
        text += body
    return text, tuple(starts)


def _unpad(padding: re.Match[str]) -> str:
    return " " if padding.group().startswith(" ") else "---"


def _letters(escapes: str) -> str:
    """Controls, quotes and halves of pairs stay escaped."""
    units = [int(unit, 16) for unit in escapes.split("\\u")[1:]]
    raw = b"".join(unit.to_bytes(2, "big") for unit in units)
    text = raw.decode("utf-16-be", errors="surrogatepass")
    return "".join(
        c if c > "\x9f" and not "\ud800" <= c <= "\udfff" else f"\\u{ord(c):04x}" for c in text
    )
