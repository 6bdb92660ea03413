"""Whatever happens in a folder, and in whatever order: in the end the knowledge base is true."""

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from ingest.files import ignored
from kb.search import KnowledgeBase
from tests.ingest.homes import Home, eventually


# Watchdog warns, in its own thread, when it meets a moved directory twice.
@pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")
@pytest.mark.parametrize("seed", [1, 2])
def test_the_ledger_ends_true_to_the_disk(home: Home, seed: int) -> None:
    rng = random.Random(seed)
    kb = home.kb()
    with home.following():
        for step in range(400):
            _happen(home.docs, rng, step)
        with suppress(AssertionError):  # the next lines say what is amiss
            eventually(lambda: _known(kb) == _on_disk(home.docs), 15)
        known, disk = _known(kb), _on_disk(home.docs)
        wrong = {path for path in known | disk if known.get(path) != disk.get(path)}
        assert not {path: kb.ledger.find(str(home.docs), path) for path in wrong}
        # What is dead is gone from both indexes, and what is alive is in both, once.
        assert kb.catch_up() == kb.store.generation()
        assert len(kb.following.dense) == kb.store.counts()["chunks"]


def _happen(root: Path, rng: random.Random, step: int) -> None:
    """One of the things that people and programs do to folders."""
    files = [path for path in root.rglob("*") if path.is_file()] or [root / "first.md"]
    folders = [path for path in root.rglob("*") if path.is_dir()] or [root / "first"]
    file, folder = rng.choice(files), rng.choice([root, *folders])
    draft = root / f".draft{step}"
    acts = {
        "create": lambda: (folder / f"f{step}.md").write_text(f"# T{step}\nword{step}"),
        "edit": lambda: file.write_text(f"edited word{step}"),
        "delete": lambda: file.unlink(),
        "rename": lambda: file.rename(folder / f"r{step}.txt"),
        "save": lambda: (draft.write_text(f"saved word{step}"), draft.replace(file)),
        "replace": lambda: file.replace(rng.choice(files)),
        "make folder": lambda: (folder / f"d{step}").mkdir(),
        "move folder": lambda: rng.choice(folders).rename(folder / f"m{step}"),
        "delete folder": lambda: shutil.rmtree(rng.choice(folders)),
    }
    weights = (30, 15, 10, 10, 8, 4, 8, 6, 2)
    (act,) = rng.choices(list(acts), weights)
    try:
        acts[act]()
    except OSError:
        return  # nothing there yet, or a folder moved into itself


def _on_disk(root: Path) -> dict[str, str]:
    paths = (path for path in root.rglob("*") if path.is_file())
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in paths}
    return {path: text for path, text in texts.items() if not ignored(path)}


def _known(kb: KnowledgeBase) -> dict[str, str | None]:
    documents = {file.path: kb.store.document(file.id) for file in kb.ledger.all()}
    return {path: document and document.text for path, document in documents.items()}
