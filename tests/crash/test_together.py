"""Two writers, and many readers beside one writer."""

import random
import threading
from pathlib import Path

from kb.errors import VademecumError
from kb.search import KnowledgeBase
from tests.crash.process import Writer
from tests.ingest.homes import QUICK, Home, eventually, states
from tests.ingest.test_cli import ingest

READERS = 6


def test_a_second_writing_process_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    first = Writer(tmp_path)
    try:
        eventually(first.is_ready, 30)
        for command in ("run", "sweep"):
            second = ingest(tmp_path, command)
            assert second.returncode == 1
            assert f"is in use by process {first.process.pid}" in second.stderr
            assert "Traceback" not in second.stderr
        first.must_live()
    finally:
        first.kill()
    # The lock dies with its holder.
    assert ingest(tmp_path, "sweep").returncode == 0


def test_readers_beside_a_writer_see_whole_generations_and_no_dead_passage(home: Home) -> None:
    """Each version of a file holds its number; a version once replaced is never seen again, and a
    search never shows two versions of a file, nor a generation older than one it showed before."""
    home.settings = QUICK.model_copy(update={"compact_seconds": 0, "settle_seconds": 0})
    names = [f"{n}.md" for n in range(5)]
    for name in names:
        home.write(name, "version 0 of okapi")
    home.sweep()
    stop, wrong, searches = threading.Event(), list[str](), [0] * READERS
    # Versions that the ledger acknowledged before a search began may only grow in what it finds.
    acknowledged = dict.fromkeys(names, 0)

    def read(number: int, kb: KnowledgeBase) -> None:
        generation = 0
        while not stop.is_set():
            least = dict(acknowledged)
            found = kb.search("okapi version", 50)
            seen: dict[str, set[int]] = {}
            for hit in found.hits:
                seen.setdefault(hit.filename, set()).add(int(hit.chunk.text.split()[1]))
            searches[number] += 1
            if found.generation < generation:
                wrong.append(f"generation {found.generation} after {generation}")
            generation = found.generation
            for name in names:
                versions = seen.get(name, set())
                if len(versions) != 1 or min(versions) < least[name]:
                    wrong.append(f"{name} shows {versions}, at least {least[name]} was true")

    def guarded(number: int, kb: KnowledgeBase) -> None:
        try:
            read(number, kb)
        except VademecumError as error:
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=guarded, args=(number, home.kb())) for number in range(READERS)
    ]
    watcher = home.kb()

    def knows(name: str, text: str) -> bool:
        # Not by the generation alone: compaction moves it too, before the change has been seen.
        file = watcher.ledger.find(str(home.docs), name)
        document = watcher.store.document(file.id) if file else None
        return bool(document and document.text == text and states(watcher)[name] == "completed")

    rng = random.Random(5)
    with home.following():
        for thread in threads:
            thread.start()
        try:
            for version in range(1, 41):
                name = rng.choice(names)
                text = f"version {version} of okapi"
                home.write(name, text)
                eventually(lambda name=name, text=text: knows(name, text))
                acknowledged[name] = version
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert wrong == []
    assert min(searches) > 10
