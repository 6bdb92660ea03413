"""Sentences -> questions that they answer, by rules of English grammar. Pure.

No model and no part-of-speech tagger: a rule fires only where the words around it leave no doubt,
so that most sentences give nothing. What comes out asks for a definition, a time, an agent, a
place, a number, a name, a use or a reason (compare Heilman and Smith 2010, who rank where this
refuses). What may be a subject is `finetune.subjects`' to say.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune.subjects import NAME, is_person, may_be_person, subject_and

_NUMBER = (
    r"\d[\d,]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    r"|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty"
)
_MONTH = r"January|February|March|April|May|June|July|August|September|October|November|December"
_TIME = (
    rf"(?:(?:early|late|mid-?) ?)?(?:\d{{1,2}} )?(?:(?:{_MONTH}) )?(?:\d{{1,2}}, )?[12]\d{{3}}s?"
)
_IRREGULAR = {
    "written": "wrote",
    "built": "built",
    "led": "led",
    "made": "made",
    "held": "held",
    "won": "won",
    "given": "gave",
    "taken": "took",
    "chosen": "chose",
    "drawn": "drew",
    "found": "found",
    "sold": "sold",
    "bought": "bought",
    "shown": "showed",
    "spoken": "spoke",
    "fought": "fought",
    "struck": "struck",
    "sent": "sent",
    "set": "set",
}
_DONE = rf"[a-z]+(?:[^e]ed|ied)|born|{'|'.join(_IRREGULAR)}"
_BE = "is|are|was|were"
_PROPER = r"(?:the )?[A-Z][^\s,;]*(?: (?:of|the|de|von|van|and|[A-Z][^\s,;]*))*"
_ABOUT = r"(?:(?:about|over|nearly|some|around|approximately|more than) )?"
_CONTEXT = re.compile(
    r"\b(?:it|its|he|his|him|she|her|they|their|them|this|that|these|those|such|there|here|also|then"
    r"|both|former|latter|just|above|below|following)\b",
    re.IGNORECASE,
)
"""Words that point at another sentence: a question must stand alone."""
_GLUED = re.compile(r"[a-z)\]][A-Z][a-z]{2}|\b(\w+(?: \w+){0,3}) \1\b|[a-z] The |: ?-")
"""Text whose headings or paragraphs ran into each other."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the words of its sentence that a right answer holds: a time, a number or a
    name; none where other words could answer as well."""

    question: str
    answer: str = ""


def ask(sentence: str) -> Iterator[Asked]:
    """Questions that this sentence answers, at most one a rule."""
    said = " ".join(sentence.split()).rstrip(".!")
    if _GLUED.search(said):
        return
    for rule in _RULES:
        if (asked := rule(said)) is not None and _is_fit(asked.question):
            yield asked


def _definition(said: str) -> Asked | None:
    """X is a Y -> What is X?"""
    if not (
        hit := subject_and(rf"(?P<be>{_BE}) (?P<what>an? |the |one of the )(?P<rest>\w.+)", said)
    ):
        return None
    subject, found = hit
    name = re.sub(r"^(?:the|an?) ", "", subject)
    if not NAME.search(name) or len(found["rest"].split()) < 4 or " if " in said:
        return None
    person = found["be"] in ("is", "was") and is_person(found["rest"])
    if not person and may_be_person(subject):
        return None
    who = "Who" if person else "What"
    return Asked(f"{who} {found['be']} {subject}?")


def _when(said: str) -> Asked | None:
    """X was founded (by Y) in 1999 -> When was X founded?"""
    pattern = (
        rf"(?P<be>was|were) (?P<done>{_DONE})(?P<rest>(?: [^\s,;]+){{0,6}}?)"
        rf" (?:in|on) (?P<time>{_TIME})\b"
    )
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    rest = (
        "" if re.search(r"\b(?:by|and|but|in|who|that|which)\b", found["rest"]) else found["rest"]
    )
    return Asked(f"When {found['be']} {subject} {found['done']}{rest}?", found["time"])


def _when_first(said: str) -> Asked | None:
    """In 1999, X was made Y -> When was X made Y?"""
    found = re.match(rf"In (?P<time>{_TIME}),? (?P<after>.+)", said)
    if not found:
        return None
    hit = subject_and(rf"(?P<be>was|were) (?P<rest>(?:{_DONE})[^,;]*)", found["after"])
    if not hit or len(hit[1]["rest"].split()) > 10:
        return None
    return Asked(f"When {hit[1]['be']} {hit[0]} {hit[1]['rest']}?", found["time"])


def _agent(said: str) -> Asked | None:
    """X was founded by Y -> Who founded X?"""
    pattern = rf"(?P<be>was|were) (?P<done>{_DONE}) by (?P<agent>{_PROPER})"
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    agent = _named_part(found["agent"])
    past = _IRREGULAR.get(found["done"], found["done"])
    if past == "born" or agent.endswith(("'s", "’s")):
        return None
    return Asked(f"Who {past} {subject}?", agent)


def _cause(said: str) -> Asked | None:
    """X is caused by y -> What is X caused by?"""
    pattern = (
        rf"(?P<be>{_BE}) (?P<done>caused|characteri[sz]ed|followed|surrounded|bordered|bounded"
        r"|influenced|inspired|governed|powered|driven|triggered|determined|replaced)"
        r" by (?P<agent>[^,;]+)"
    )
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    return Asked(f"What {found['be']} {subject} {found['done']} by?")


def _place(said: str) -> Asked | None:
    """X is located in Y -> Where is X located?"""
    pattern = (
        rf"(?P<be>{_BE}) (?P<done>located|situated|based|headquartered|buried|born|held|built"
        rf"|raised) (?:in|at|near) (?P<place>{_PROPER})"
    )
    hit = subject_and(pattern, said)
    if not hit or re.match(rf"(?:{_TIME}|{_MONTH})\b", hit[1]["place"]):
        return None
    subject, found = hit
    return Asked(f"Where {found['be']} {subject} {found['done']}?", _named_part(found["place"]))


def _named(said: str) -> Asked | None:
    """X is also known as Y -> What is X also known as?"""
    pattern = (
        rf"(?P<be>{_BE}) (?P<done>(?:also |sometimes |often |commonly |originally |formerly )?"
        r"(?:known as|called|nicknamed|named|referred to as))"
        r" (?P<name>(?:the )?[\"“']?[A-Z][^,;.]*)"
    )
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    return Asked(f"What {found['be']} {subject} {found['done']}?", _head(found["name"]))


def _purpose(said: str) -> Asked | None:
    """X is used to y -> What is X used for?"""
    pattern = (
        rf"(?P<be>{_BE}) (?P<done>(?:also |often |widely |commonly |mainly )?"
        r"(?:used (?:to|for|in|as)|known for|responsible for|famous for)) \w.+"
    )
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    what = re.sub(r"used (?:to|for|in|as)$", "used for", found["done"])
    return Asked(f"What {found['be']} {subject} {what}?")


def _count(said: str) -> Asked | None:
    """X has five members -> How many members does X have?"""
    pattern = (
        rf"(?P<have>has|have|had) (?P<number>{_ABOUT}(?:{_NUMBER}))"
        r" (?P<what>(?:[a-z-]+ ){0,2}?[a-z-]+s)(?=[ .,;]|$)(?P<of> of [a-z -]+(?=[.,;]|$))?"
    )
    hit = subject_and(pattern, said)
    if not hit or re.search(r"\b(?:times|of|and|or|to|as|years|is|was|has|more)\b", hit[1]["what"]):
        return None
    subject, found = hit
    do = {"has": "does", "have": "do", "had": "did"}[found["have"]]
    what = f"{found['what']}{found['of'] or ''}"
    return Asked(f"How many {what} {do} {subject} have?", found["number"])


def _population(said: str) -> Asked | None:
    """X has a population of n -> What is the population of X?"""
    pattern = (
        r"(?P<have>has|had) an? (?:total |estimated )?(?P<what>population|area|length|height"
        rf"|capacity|diameter|budget|elevation) of (?P<number>{_ABOUT}[\d.,]*\d)"
    )
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    be = "is" if found["have"] == "has" else "was"
    return Asked(f"What {be} the {found['what']} of {subject}?", found["number"])


def _reason(said: str) -> Asked | None:
    """X is y because z -> Why is X y?"""
    pattern = (
        rf"(?P<be>{_BE}|can|could|must|should|will) (?P<rest>(?:[^\s,;]+ ){{1,10}}?)"
        r"because (?:of )?(?P<why>.+)"
    )
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    if re.search(r"\b(?:not|only|just|\w+ly) $", found["rest"]):
        return None
    return Asked(f"Why {found['be']} {subject} {found['rest'].strip()}?")


def _parts(said: str) -> Asked | None:
    """X consists of y -> What does X consist of?"""
    pattern = r"(?P<verb>consists? of|includes?|contains?|comprises?|requires?) \w.+"
    if not (hit := subject_and(pattern, said)):
        return None
    subject, found = hit
    if len(subject.split()) < 3 and not NAME.search(subject[1:]):
        return None
    first, *more = found["verb"].split()
    single = first.endswith("s")
    verb = " ".join([first.removesuffix("s"), *more])
    return Asked(f"What {'does' if single else 'do'} {subject} {verb}?")


def _limit(said: str) -> Asked | None:
    """X must do y within n days -> Within what time must X do y?"""
    pattern = (
        r"(?P<must>must|shall|should) (?P<rest>(?:[^\s,;:]+ ){1,14}?)within"
        rf" (?P<time>(?:{_NUMBER}) (?:business |working |calendar )?(?:day|month|week|hour|year)s?)"
    )
    hit = subject_and(pattern, said)
    if not hit or re.search(r"\b(?:if|unless|and|or)\b", hit[1]["rest"]):
        return None
    subject, found = hit
    return Asked(f"Within what time must {subject} {found['rest'].strip()}?", found["time"])


def _subject(said: str) -> Asked | None:
    """The X was restored in 1999 -> What was restored in 1999?"""
    pattern = rf"(?P<rest>(?:{_BE}) (?:{_DONE}) [^,;:]+)"
    if not said.startswith("The ") or not (hit := subject_and(pattern, said)):
        return None
    _, found = hit
    rest = found["rest"].strip()
    named = re.search(r"[A-Z]|\d", rest)
    if not named or not 5 <= len(rest.split()) <= 14 or re.search(r" (?:which|who|that) ", rest):
        return None
    return Asked(f"What {rest}?")


_RULES: tuple[Callable[[str], Asked | None], ...] = (
    _definition,
    _when,
    _when_first,
    _agent,
    _cause,
    _place,
    _named,
    _purpose,
    _count,
    _population,
    _reason,
    _parts,
    _limit,
    _subject,
)


def _named_part(name: str) -> str:
    """A name without the little words that led on to something else."""
    return re.sub(r"(?: (?:of|the|and|de|von|van))+$", "", name)


def _head(phrase: str) -> str:
    """The words up to where another clause begins."""
    cut = re.split(r" (?:which|that|who|when|where|because|but|while|as|in|on|at|for|to) ", phrase)
    return cut[0].strip(" \"“”'")


def _is_fit(question: str) -> bool:
    """Long enough to mean one thing, short enough to be asked, and standing alone."""
    words = len(question.split())
    return 4 <= words <= 22 and len(question) <= 160 and not _CONTEXT.search(question)
