"""A follow-up -> a question that stands alone for retrieval. Pure, and without the language model.

"And on Sundays?" finds nothing by itself. A question that leans on what was said before is searched
for together with the question before it; what the model is asked stays as the user wrote it.
"""

import re
from collections.abc import Sequence

from kb.words import content_words

_LEANS = re.compile(
    r"^(and|but|or|so|also|what about|how about|what if|then|why|why not|who else|where else)\b"
    r"|\b(it|its|they|them|their|he|him|his|she|her|this|that|these|those|there|one|ones|same|else"
    r"|former|latter|instead)\b"
    r"|^(那|那么|还有|另外|如果|为什么|然后)|[它他她]们?|这个|那个|这些|那些|该|其中|呢[？?]?$",
    re.IGNORECASE,
)
_FEW = 3  # content words; a question with fewer rarely stands alone


def standalone(question: str, earlier: Sequence[str]) -> str:
    """What to search for. `earlier` are the user's questions before, oldest first."""
    if not earlier or not _leans(question):
        return question
    return f"{earlier[-1]}\n{question}"


def _leans(question: str) -> bool:
    return len(content_words(question)) < _FEW or _LEANS.search(question.strip()) is not None
