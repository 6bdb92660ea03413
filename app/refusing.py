"""A model's refusal, told from an answer while it streams. Pure.

A model may be trained to say exactly `kb.prompt.REFUSAL` where the references hold no answer. Text
is held back only while it may still become that sentence, a few words for any other answer.
"""

from kb.prompt import REFUSAL


class RefusalWatch:
    """Feed it the text as it comes; `refused` and `rest` tell at the end."""

    def __init__(self, *, watching: bool = True) -> None:
        self._watching = watching
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be said now."""
        if not self._watching:
            return text
        self._held += text
        if any(_may_become(self._held, refusal) for refusal in REFUSAL.values()):
            return ""
        self._watching = False
        return self.rest()

    @property
    def refused(self) -> bool:
        """Whether all of the answer is the refusal."""
        return self._held.strip() in REFUSAL.values()

    def rest(self) -> str:
        """What is still held back."""
        held, self._held = self._held, ""
        return held


def _may_become(text: str, refusal: str) -> bool:
    text = text.lstrip()
    return refusal.startswith(text) or text.rstrip() == refusal
