"""Both indexes of a reader, kept at the generation of the store. Knows nothing of ranking.

A write is seen by the next search: the generation is compared first (microseconds), and what
changed is taken over.
"""

import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kb.dense import EXACT, DenseIndex, as_codes
from kb.embedders import Named
from kb.embedding import Embedder
from kb.errors import EmbedderDown, ModelBroken, ModelNotFound, NotYet, StoreBroken
from kb.feed import Feed
from kb.languages import Comparison, Way
from kb.layout import lexical_of
from kb.lexical import LexicalIndex
from kb.records import Changes
from kb.store import Store

_PATIENCE = 2.0  # seconds that a search waits for the generation it was asked for
_SLICE = 10_000  # vectors read at once, so that opening needs little memory beside the index
_FAR = 20_000  # changed passages that are not taken over one by one


class Following:
    """The dense and the lexical index of one knowledge base, and the embedder that made its
    vectors. Hold `lock` while they are read: they are those of one generation then.

    The knowledge base may be made anew with another embedder; `others` then gives that one.
    """

    def __init__(self, store: Store, embedder: Embedder, others: Named | None = None) -> None:
        self.lock = threading.Lock()
        self.embedder = embedder
        self._store = store
        self._name = store.file.parent.name
        self._others = others
        self.dense = self._filled()
        self._place = lexical_of(store)
        self.lexical = LexicalIndex(self._place)

    def beside(self, vector: npt.NDArray[np.float32], *, chinese: bool) -> Comparison:
        """A question's vector beside all passages."""
        balance = self.dense.balance
        if balance is None:
            return Comparison(self.dense, [Way(chinese, vector)], None)
        return Comparison(self.dense, balance.ways(vector, chinese), balance.languages)

    def catch_up(self, at_least: int = 0) -> int:
        """Bring both indexes to the store's generation and return it.

        Waits up to two seconds for generation `at_least`; raises NotYet after that.
        """
        self._wait_for(at_least)
        with self.lock:
            generation = self._store.generation()
            feed = Feed(self._store)
            while self.dense.generation < generation:
                if feed.is_far(self.dense.generation, _FAR):
                    self.dense = self._filled()
                else:
                    self._take(feed.changes(self.dense.generation))
            if self.lexical.generation < generation:
                self._follow_lexical()
            return self.dense.generation

    def _take(self, changes: Changes) -> None:
        """Vectors of another embedder begin an index of their own."""
        if changes.embedder == self.embedder.name:
            self.dense.catch_up(changes)
        else:
            self.dense = self._filled()

    def _filled(self) -> DenseIndex:
        """The dense index anew from the store, slice by slice, for the embedder that it names.
        Raises StoreBroken if that is gone."""
        generation, name = self._made_with()
        if name != self.embedder.name:
            what = f"knowledge base {self._name} was embedded with {name}"
            if self._others is None:
                raise StoreBroken(f"{what}, not with {self.embedder.name}")
            try:
                self.embedder = self._others(name)
            except (ModelNotFound, ModelBroken, EmbedderDown) as error:
                raise StoreBroken(f"{what}, and has to be made anew: {error}") from error
        index = DenseIndex(self.embedder.dimensions, EXACT, self.embedder.languages)
        for ids, vectors in Feed(self._store).vectors(generation, _SLICE):
            index.add(np.asarray(ids, np.int64), as_codes(vectors))
        index.filled_to(generation)
        return index

    def _made_with(self) -> tuple[int, str]:
        """The generation, and the embedder that was the knowledge base's at that one."""
        while True:
            generation = self._store.generation()
            name = self._store.meta("embedder") or ""
            if self._store.generation() == generation:
                return generation, name

    def _follow_lexical(self) -> None:
        """See the last commit, in the index that the store names; it may move meanwhile."""
        while True:
            place = lexical_of(self._store)
            try:
                if place == self._place:
                    self.lexical.reload()
                else:
                    self.lexical, self._place = LexicalIndex(place), place
            except StoreBroken:
                if lexical_of(self._store) == place:
                    raise
            if lexical_of(self._store) == place:
                return

    def _wait_for(
        self,
        generation: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        until = clock() + _PATIENCE
        while (reached := self._store.generation()) < generation:
            if clock() >= until:
                raise NotYet(
                    f"knowledge base {self._name} is at generation {reached}, not yet {generation}"
                )
            sleep(0.02)
