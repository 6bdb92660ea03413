"""The lexical index: BM25 by tantivy, on disk. The only file that imports tantivy.

The writer (ingest) commits; readers reload and see the last whole commit. Which generation a
commit holds is written in a marker document of the same commit, so that index and marker cannot
disagree. After a crash the index is some commits behind and catches up from SQLite.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import tantivy

from kb.errors import StoreBroken, StoreDown
from kb.records import Changes
from kb.words import VERSION, words

_HEAP = 64_000_000
_CONTEXT = 3
"""How often a word of title or heading counts beside one of the text: a title says what all of its
document is about, and names it (docs/decisions/011-hybrid-quality.md)."""
_MARKER = f"marker_{VERSION}"
"""Named after the version of the words: an index of others has another schema, cannot be opened,
and is built again."""


class LexicalIndex:
    """Open for reading, or for writing by the one process that holds the writer's lock."""

    def __init__(self, folder: Path, *, readonly: bool = True) -> None:
        self._readonly = readonly
        try:
            folder.mkdir(exist_ok=True)  # alone: a knowledge base that was removed stays so
            self._index = tantivy.Index(_schema(), str(folder), reuse=True)
            self._index.config_reader(reload_policy="manual")
            self._writer = None if readonly else self._open_writer()
        except (ValueError, FileNotFoundError) as error:
            raise StoreBroken(
                f"the lexical index {folder.name} cannot be opened: {error}"
            ) from error
        self._generation = -1
        self.reload()

    @property
    def generation(self) -> int:
        return self._generation

    def reload(self) -> None:
        """See the writer's last commit. Raises StoreBroken for a torn or missing file."""
        try:
            self._index.reload()
            self._searcher = self._index.searcher()
            self._generation = self._marked()
        except ValueError as error:
            raise StoreBroken(f"the lexical index cannot be read: {error}") from error

    def catch_up(self, changes: Changes) -> None:
        """Write and commit. Returns when the commit is durable and visible to readers' `reload`.

        Raises StoreDown when it cannot be written (a full disk); then it must be opened again.
        """
        if self._readonly:
            raise StoreBroken("this lexical index was opened for reading")
        if self._writer is None:
            raise StoreDown("the lexical index must be opened again")
        # Chunks and marker share a commit, so a replay after a crash never brings a chunk twice.
        try:
            self._write(self._writer, changes)
            self._writer.commit()
        except ValueError as error:  # tantivy's writer does not live through it: no rollback
            raise StoreDown(f"the lexical index cannot be written: {error}") from error
        except BaseException:
            self._writer.rollback()  # what was half written must not ride on the next commit
            raise
        try:
            self.reload()
        except StoreBroken as error:  # not for good: its owner opens it again, and so mends it
            raise StoreDown(str(error)) from error

    def drop_dead_segments(self) -> None:
        """Remove the files of segments in which nothing lives. A merge that began when something
        did would bring the dead along, so those under way are waited for."""
        try:
            self.close()
            self._writer = self._open_writer()
            self.catch_up(Changes(self.generation))  # a commit leaves empty segments out
            self._writer.garbage_collect_files()
        except ValueError as error:
            raise StoreDown(f"the lexical index cannot be written: {error}") from error

    def _open_writer(self) -> tantivy.IndexWriter:
        writer = self._index.writer(_HEAP, 1)
        # A writer that was killed leaves files of a commit that never was. They hold words, and a
        # later commit that wants one of their names would fail.
        writer.garbage_collect_files()
        return writer

    def _write(self, writer: tantivy.IndexWriter, changes: Changes) -> None:
        if changes.fresh:
            writer.delete_all_documents()
        for chunk_id in changes.removed:
            writer.delete_documents_by_query(self._is(chunk_id))
        for entry in changes.added:
            held = words(entry.context) * _CONTEXT + words(entry.text)
            document = tantivy.Document(text=" ".join(held))
            document.add_unsigned("id", entry.id)
            writer.add_document(document)
        writer.delete_documents_by_term(_MARKER, "generation")
        marker = tantivy.Document(**{_MARKER: "generation"})
        marker.add_unsigned("generation", changes.generation)
        writer.add_document(marker)

    def search(self, query: Sequence[str], k: int) -> list[tuple[int, float]]:
        """`query` is the words of the question (see `kb.words`); any of them may match."""
        if not query or k <= 0:
            return []
        found = self._searcher.search(self._any_of(query), k, count=False).hits
        ids = self._searcher.fast_field_values("id", [address for _, address in found])
        return [(int(i), float(s)) for i, (s, _) in zip(ids, found, strict=True) if i is not None]

    def ids(self) -> list[int]:
        """The chunks it holds, as often as it holds them; for checking it against the store."""
        n = self._searcher.num_docs
        if n == 0:
            return []
        found = self._searcher.search(tantivy.Query.all_query(), n, count=False).hits
        ids = self._searcher.fast_field_values("id", [address for _, address in found])
        return [int(i) for i in ids if i is not None]

    def rarity(self, query: Sequence[str]) -> dict[str, float]:
        """BM25's inverse document frequency of each word in this knowledge base."""
        n = max(self._searcher.num_docs - 1, 0)
        out = {}
        for word in query:
            df = min(self._searcher.doc_freq("text", word), n)
            out[word] = math.log(1 + (n - df + 0.5) / (df + 0.5))
        return out

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.wait_merging_threads()

    def _any_of(self, query: Sequence[str]) -> tantivy.Query:
        schema = self._index.schema
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.term_query(schema, "text", word, "freq"))
            for word in query
        ]
        return tantivy.Query.boolean_query(clauses)

    def _is(self, chunk_id: int) -> tantivy.Query:
        # By query: deleting by term takes a Python int for a signed one and finds nothing.
        return tantivy.Query.term_query(self._index.schema, "id", chunk_id, "basic")

    def _marked(self) -> int:
        query = tantivy.Query.term_query(self._index.schema, _MARKER, "generation", "basic")
        hits = self._searcher.search(query, 1, count=False).hits
        if not hits:
            return 0
        (value,) = self._searcher.fast_field_values("generation", [hits[0][1]])
        return int(value or 0)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("id", indexed=True, fast=True)
    builder.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field(_MARKER, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("generation", fast=True)
    return builder.build()
