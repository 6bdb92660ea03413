"""Questions made from the passages of a knowledge base: by rules, or by an engine.

An engine's question stays only if the passage answers it: the engine itself answers it again from
the passage alone, in words that stand there. (That the retriever finds the passage is
`finetune.grounding`'s to see.) Every question knows its passage and the sentence that answers.
"""

import random
from collections.abc import Iterator

from finetune.answers import holds, nearest, proper
from finetune.asking import ask
from finetune.chat import Chat
from finetune.clean import Dropped
from finetune.questions import Question, passage
from kb.feed import Feed
from kb.judging import spoken
from kb.prompt import Excerpt, harmless, messages
from kb.records import Entry
from kb.search import KnowledgeBase
from kb.words import content_words, is_chinese, support, words

SUPPORTED = 0.8
"""Share of an answer's words that must stand in the passage."""
_SLICE = 5_000
_FEW = 8  # words of a passage that is worth a question
_ASK = {
    "en": "Write one short question that this passage answers. Name what it is about; do not write"
    ' "the passage". Write only the question.\n\n',
    "zh": "根据下面这段话写一个它能够回答的简短问题，写明所问的事物，不要写“这段话”。"
    "只写问题。\n\n",
}


def by_rules(kb: KnowledgeBase) -> Iterator[Question]:
    """In the order of passages. English only."""
    for entry in _entries(kb):
        for sentence in proper(entry.text):
            for asked in ask(sentence):
                answers = (asked.answer,) if asked.answer else ()
                source = f"passage {entry.id}"
                yield Question(asked.question, answers, (passage(entry.id),), source, sentence)


def by_engine(
    kb: KnowledgeBase, chat: Chat, most: int | None, seed: int, dropped: Dropped
) -> Iterator[Question]:
    """One a passage, of passages drawn by the seed. Raises EngineDown."""
    entries = [e for e in _entries(kb) if len(words(e.text)) >= _FEW]
    random.Random(seed).shuffle(entries)
    for entry in entries[:most]:
        question = _question(entry, chat)
        sentence = _answered(question, entry, chat) if question else None
        if sentence is None:
            dropped.add("engine's question that its passage does not answer", question or "none")
            continue
        yield Question(question, (), (passage(entry.id),), f"passage {entry.id}", sentence)


def _entries(kb: KnowledgeBase) -> Iterator[Entry]:
    after, upto = 0, kb.store.generation()
    while entries := Feed(kb.store).entries(after, upto, _SLICE):
        yield from entries
        after = entries[-1].id


def _question(entry: Entry, chat: Chat) -> str:
    """One line that ends as a question does, or nothing."""
    language = "zh" if is_chinese(entry.text) else "en"
    prompt = f"{_ASK[language]}{harmless(entry.text)}"
    said = chat.say([{"role": "user", "content": prompt}], 60).strip()
    line = said.splitlines()[0].strip(' "“”*') if said else ""
    fits = line.endswith(("?", "？")) and len(line) <= 200 and len(content_words(line)) >= 2
    about = set(content_words(line)) & set(words(f"{entry.context} {entry.text}"))
    return line if fits and about else ""


def _answered(question: str, entry: Entry, chat: Chat) -> str | None:
    """The passage's sentence that holds the engine's answer, if the passage bears it out."""
    answer = spoken(chat.say(messages(question, [Excerpt(1, entry.text)]), 80))
    said = content_words(answer)
    if not said or support(said, words(entry.text)) < SUPPORTED:
        return None
    sentences = list(proper(entry.text))
    if exact := [s for s in sentences if holds(s, [answer])]:
        return nearest(question, exact)
    found = nearest(answer, sentences)
    return found if found and support(said, words(found)) >= SUPPORTED else None
