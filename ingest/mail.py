"""Mail -> head and body. Python's own library reads it: kreuzberg decodes UTF-8 bodies only.

Attached files are named, not read. Knows nothing of Outlook's format but how its head is shown.
"""

import email
import email.message
import email.policy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kb.encoding import decode

_SHOWN_HEAD = re.compile(r"\s*(?:\*\*[A-Z][\w-]*\*\*: .*\n+)+")


@dataclass(frozen=True, slots=True)
class Mail:
    """`head` is Markdown: the subject as a heading, who wrote to whom and when."""

    subject: str
    head: str
    body: str
    is_html: bool = False


def read(data: bytes) -> Mail:
    """An `.eml` file."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    part = message.get_body(("plain", "html"))
    subject = str(message["Subject"] or "").strip()
    fields = [(key, str(message[key] or "")) for key in ("From", "To", "Date")]
    names = [str(p.get_filename() or "") for p in message.iter_attachments()]
    is_html = part is not None and part.get_content_type() == "text/html"
    return Mail(
        subject, _head(subject, fields, names), "" if part is None else _body(part), is_html
    )


def outlook(shown: str, metadata: Mapping[str, Any]) -> Mail:
    """An Outlook message, from the Markdown and the fields that kreuzberg makes of it."""
    subject = str(metadata.get("subject") or "").strip()
    fields = [
        ("From", str(metadata.get("from_email") or metadata.get("from_name") or "")),
        ("To", ", ".join(map(str, metadata.get("to_emails") or ()))),
        ("Date", str(metadata.get("created_at") or "")),
    ]
    names = [str(name) for name in metadata.get("attachments") or ()]
    return Mail(subject, _head(subject, fields, names), _SHOWN_HEAD.sub("", shown, count=1))


def _head(subject: str, fields: Sequence[tuple[str, str]], attached: Sequence[str]) -> str:
    lines = [f"{key}: {value}" for key, value in fields if value]
    names = ", ".join(filter(None, attached))
    lines += [f"Attachments: {names}"] if names else []
    heading = f"# {subject}\n\n" if subject else ""
    return heading + "\n".join(lines)


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
