"""What suits a model: how questions are put to it. Knows settings and manifests, no engine."""

from collections.abc import Set
from dataclasses import dataclass

from app.settings import AppSettings, EngineSettings
from kb.manifest import Serving
from kb.models import context_tokens, describe

_EVIDENCE = 0.15


@dataclass(frozen=True, slots=True)
class Profile:
    """The languages a model writes (empty: all), the room for references in its prompt, how many
    sentences of the passages lead its answer, and the chance of an answer below which it is not
    asked; where it does not write the language and passages speak for themselves, `unspoken`.
    `refuses`: it was taught to say so where the references hold no answer."""

    languages: tuple[str, ...]
    context_tokens: int
    quotes: int
    evidence: float = _EVIDENCE
    unspoken: float = _EVIDENCE
    refuses: bool = False

    @classmethod
    def of(
        cls, engine: EngineSettings, app: AppSettings, release: Serving | None = None
    ) -> "Profile":
        """What a release asks for, or what suits the base; where `[app]` says something, that."""
        model = "" if engine.url else engine.model
        bundled = describe(model)
        suits = release or Serving(
            evidence=_EVIDENCE,
            context_tokens=context_tokens(model),
            # A bundled model is small: the passages speak first (docs/decisions/004).
            quotes=2 if bundled else 0,
        )
        return cls(
            bundled.languages if bundled else (),
            app.context_tokens or suits.context_tokens,
            app.quotes if app.quotes >= 0 else suits.quotes,
            app.evidence if app.evidence >= 0 else suits.evidence,
            app.evidence if app.evidence >= 0 else _EVIDENCE,
            refuses=release is not None,
        )

    def least_chance(self, languages: Set[str]) -> float:
        """Below this chance of an answer a question is refused at once. What a release asks for
        counts on a model that refuses by itself, so only where the model is asked."""
        return self.evidence if self.speaks(languages) else self.unspoken

    def speaks(self, languages: Set[str]) -> bool:
        """Whether it knows all of these: those of question and best passage."""
        return not self.languages or languages <= set(self.languages)
