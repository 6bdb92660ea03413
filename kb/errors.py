"""The tree of errors of the whole house, and the one question asked of them: try again, or not?

    VademecumError
    ├── Permanent                 trying again cannot help; said once, clearly
    │   ├── BadConfiguration      a key or value of the configuration
    │   ├── BadData               a row or file of a data set handed to a command
    │   ├── GateClosed            a tuned model that is not shown to be better
    │   ├── ModelNotFound         no weights under this name
    │   ├── ModelBroken           weights that cannot be read
    │   ├── UnknownKnowledgeBase  no knowledge base of this name or id
    │   ├── AlreadyExists         a name that is taken
    │   ├── WriterBusy            another process writes this knowledge base, or run
    │   ├── StoreBroken           the database of a knowledge base cannot be used
    │   ├── TrainingStopped       a training run ran out of memory or disk
    │   └── Unreadable            a document that cannot be turned into text (has a code)
    └── Transient                 the same call may succeed later
        ├── EngineDown            the language model cannot be reached
        ├── EmbedderDown          a remote embedder cannot be reached
        ├── StoreDown             a database or index that cannot be used right now
        └── NotYet                the knowledge base has not reached the asked generation

Each layer turns foreign exceptions into these at its edge, with `raise ... from error`.
"""

_SAID = 300
"""Characters of a library's message; some print whole files."""


def one_line(error: Exception) -> str:
    """What a library's exception says, fit to stand in a message of ours."""
    return " ".join(str(error).split())[:_SAID]


class VademecumError(Exception):
    """Base of all errors that Vademecum raises on purpose; the message is fit for users."""


class Permanent(VademecumError):
    """Trying again cannot help."""


class Transient(VademecumError):
    """The same call may succeed later."""


class BadConfiguration(Permanent):
    """A configuration key or value is wrong; the message names it."""


class BadData(Permanent):
    """A row or file handed to a command is wrong; the message names file and line."""


class GateClosed(Permanent):
    """A tuned model may not be released; the message says why."""


class ModelNotFound(Permanent):
    """No weights are known under this name."""


class ModelBroken(Permanent):
    """Weights exist but cannot be read."""


class UnknownKnowledgeBase(Permanent):
    """No knowledge base of this name or id."""


class AlreadyExists(Permanent):
    """The name is taken."""


class WriterBusy(Permanent):
    """Another process already writes this knowledge base, or the folder of this training run."""


class StoreBroken(Permanent):
    """The database of a knowledge base is damaged, or newer than this program."""


class TrainingStopped(Permanent):
    """A training run ran out of memory or disk; what it saved before is whole."""


class Unreadable(Permanent):
    """A document cannot be turned into text.

    `code` is a stable word for programs (`corrupt`, `encrypted`, `empty`, `too_large`,
    `unsupported_type`, `timeout`, `unreadable`, `ocr`); the message is one sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EngineDown(Transient):
    """The language model cannot be reached right now."""


class EmbedderDown(Transient):
    """A remote embedder cannot be reached right now."""


class StoreDown(Transient):
    """The database or index of a knowledge base cannot be used right now: its disk is full, or
    somebody holds it too long."""


class NotYet(Transient):
    """The knowledge base has not reached the generation that the request asked for."""
