"""What suits a model: how questions are put to it. Knows settings and manifests, no engine."""

from dataclasses import dataclass

from app.settings import AppSettings, EngineSettings
from kb.manifest import Serving
from kb.models import describe

# A bundled model is small: short prompts, and the passages speak first (docs/decisions/004).
_SMALL = Serving(evidence=0.15, context_tokens=160, quotes=2)
_ANY = Serving(evidence=0.15, context_tokens=2000, quotes=0)


@dataclass(frozen=True, slots=True)
class Profile:
    """The languages a model writes (empty: all), the room for references in its prompt, how many
    sentences of the passages lead its answer, and the chance of an answer below which it is not
    asked."""

    languages: tuple[str, ...]
    context_tokens: int
    quotes: int
    evidence: float = _ANY.evidence

    @classmethod
    def of(
        cls, engine: EngineSettings, app: AppSettings, release: Serving | None = None
    ) -> "Profile":
        """What a release asks for, or what suits the base; where `[app]` says something, that."""
        bundled = describe(engine.model) if not engine.url else None
        suits = release or (_SMALL if bundled else _ANY)
        return cls(
            bundled.languages if bundled else (),
            app.context_tokens or suits.context_tokens,
            app.quotes if app.quotes >= 0 else suits.quotes,
            app.evidence if app.evidence >= 0 else suits.evidence,
        )

    def speaks(self, language: str) -> bool:
        return not self.languages or language in self.languages
