"""The line in front of an answer that names the references it does not use, taken off. Pure.

A model may be trained to begin with `kb.prompt.set_aside`. Text is held back only while it may
still become that line, a token or two for any other answer. Knows nothing of what was retrieved.
"""

from kb import prompt


class AsideWatch:
    """Feed it the text as it comes; `numbers` are those that the line named."""

    def __init__(self) -> None:
        self._watching = True
        self._held = ""
        self.numbers: list[int] = []

    def feed(self, text: str) -> str:
        """What can be said now."""
        if not self._watching:
            return text
        self._held += text
        return "" if prompt.may_set_aside(self._held) else self.rest()

    def rest(self) -> str:
        """What is still held back, without the line."""
        self._watching = False
        numbers, text = prompt.split_aside(self._held)
        self.numbers += numbers
        self._held = ""
        return text
