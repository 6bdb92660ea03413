"""Is this the subject of a sentence, for certain? And how does it stand inside a question? Pure."""

import re

_NO_SUBJECT = re.compile(
    r"^(?:It|He|She|They|We|I|You|This|These|That|Those|There|Here|His|Her|Its|Their|Our|My|Your"
    r"|One|Some|Many|Most|Several|Both|Each|Other|Others|Another|Such|All|Any|No|None|Few|Much|More"
    r"|In|On|At|By|For|From|With|Within|Without|During|After|Before|Since|Until|While|When|Where|If"
    r"|As|Although|Though|Because|But|And|Or|So|Yet|However|Thus|Then|Also|To|Of|Under|Over|Upon"
    r"|Among|Between|Through|According|Following|Despite|Today|Now|Later|First|Second|Finally"
    r"|Sometimes|Usually|Often|Typically|Generally|Currently|Likely|Likewise|Recently|Long|Examples?"
    r"|Like|Unlike|North|South|East|West|What|Who|Which|How|Why|Not|Only|Even|Just|Once|Part|Half"
    r"|[A-Za-z]+s$|The (?:former|latter|following|first|second|third|next|other|same|result|above"
    r"|rest|two|three))\b"
)
"""How no subject begins that could stand alone; a plural of one word ("Symptoms") is nobody's."""
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|been|being|has|have|had|do|does|did|can|could|may|might|must|shall"
    r"|should|will|would|that|which|who|whom|whose|where|when|because|if|you|we|they|it|make|\w+ing"
    r"|[a-z]+ed)\b|n['’]t\b"
)
NAME = re.compile(r"[A-Z]")
_PERSON = re.compile(
    r"^(?:an? |the )?(?:[\w-]+ ){0,5}(?:\w+(?:ist|ian|icist|wright|man|woman)|author|poet|king"
    r"|queen"
    r"|emperor|philosopher|writer|actor|actress|singer|painter|player|president|leader|general|saint"
    r"|director|producer|lawyer|officer|engineer|composer|inventor|explorer|teacher|god|goddess"
    r"|astronaut|prince|princess|footballer|architect|ruler|daughter|son|member|student|manager"
    r"|socialite|founder|professor|chair|editor|journalist|critic|hero|captain|commander)"
    r"(?=$|,| (?:of|who|from|in|and|for|at|to|by|with|whose|known|best)\b)"
)
_TWO_NAMES = re.compile(r"^[A-Z]\w+(?: [A-Z][\w.]*){1,2}$")
"""May be a person's name."""


def subject_and(pattern: str, said: str) -> tuple[str, re.Match[str]] | None:
    """The sentence's subject, as it stands inside a question, and the match; the pattern goes on
    after the subject and one space."""
    for found in re.finditer(rf"(?<=\s)(?:{pattern})", said):
        subject = said[: found.start()].strip()
        if not is_subject(subject):
            return None
        return inside(subject), found
    return None


def inside(subject: str) -> str:
    """A subject within a question: the capital that began the sentence goes, a name's stays."""
    first, *more = subject.split()
    if first in ("The", "A", "An"):
        return " ".join([first.lower(), *more])
    plain = first[1:].islower() and first.isalpha() and more and more[0].islower()
    name_of = more[:1] == ["of"] and more[1:2] and more[1][0].isupper()
    return " ".join([first.lower(), *more]) if plain and not name_of else subject


def is_subject(subject: str) -> bool:
    """A noun phrase for certain: short, no verb, no clause, and it names something."""
    words = subject.split()
    return (
        0 < len(words) <= 7
        and not re.search(r"[,;:()\[\]\"“”]", subject)
        and not _NO_SUBJECT.match(subject)
        and not _VERB.search(subject)
        and not re.search(r"(?: (?:to|of|in|for|and|or|by|with)|^-.*)$", subject)
        and bool(NAME.search(re.sub(r"^(?:The|An?) ", "", subject)) or len(words) >= 3)
    )


def is_person(predicate: str) -> bool:
    """Whether `a Greek philosopher of ...` says that the subject is a person."""
    return _PERSON.match(predicate) is not None


def may_be_person(subject: str) -> bool:
    return _TWO_NAMES.match(subject) is not None
