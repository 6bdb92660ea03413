"""Embedders by name: today's, and those that older knowledge bases were made with.

While a knowledge base is made anew, questions to it are still embedded as its passages were.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from kb.embedding import Embedder, open_embedder
from kb.settings import KbSettings

Named = Callable[[str], Embedder]
"""An `Embedder.name` -> that embedder. Raises ModelNotFound, ModelBroken, EmbedderDown."""


class Embedders:
    """Opens each one once, and lets go of those that nobody holds any more. Thread-safe."""

    def __init__(self, settings: KbSettings, home: Path) -> None:
        self._settings = settings
        self._home = home
        self._lock = threading.Lock()
        self._open: WeakValueDictionary[str, Embedder] = WeakValueDictionary()

    def today(self) -> Embedder:
        """The one that the settings name. Raises ModelNotFound, ModelBroken, EmbedderDown."""
        return self(self._settings.embedder_identity)

    def __call__(self, name: str) -> Embedder:
        with self._lock:
            found = self._open.get(name)
            if found is None:
                found = self._open[name] = open_embedder(self._for(name), self._home)
            return found

    def _for(self, name: str) -> KbSettings:
        """The settings with which an embedder gets this name."""
        if name == self._settings.embedder_identity:
            return self._settings
        if name.startswith("fake-"):
            return self._settings.model_copy(update={"embedder": name.replace("-", ":", 1)})
        # Which service made it is not known; weights that are here need none.
        is_here = name.startswith("bundled:") or Path(name).is_dir()
        url = "" if is_here else self._settings.embedder_url
        return self._settings.model_copy(update={"embedder": name, "embedder_url": url})
