"""What people and programs do to a watched folder, drawn by chance; remembers every word it wrote.

Each version of a file holds one word that nothing else holds, so that a search for it tells which
version is known. Knows nothing of the writer.
"""

import random
import shutil
from pathlib import Path

from ingest.bursts import MANY

MOST = 60
"""Files kept at most, so that a round stays short."""


class Folder:
    """A folder with subfolders, another of uploads, and the words of all versions that ever lay
    in them."""

    def __init__(self, root: Path, uploads: Path, rng: random.Random) -> None:
        self.root = root
        self.uploads = uploads
        self._rng = rng
        self.words: list[str] = []
        for folder in (root, uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def files(self) -> dict[str, str]:
        """Relative path -> text of what lies there now."""
        return {
            path.relative_to(root).as_posix(): path.read_text("utf-8")
            for root in (self.root, self.uploads)
            for path in root.rglob("*.md")
            if not path.name.startswith(".")
        }

    def happen(self) -> None:
        """One random thing."""
        files = sorted(p for p in self.root.rglob("*.md") if not p.name.startswith("."))
        acts = [self._edit, self._save, self._rename, self._delete]
        weights = [3, 2, 2, 2 if len(files) < MOST else 9]
        if not files or self._rng.random() < 0.4:
            self._rng.choice([self._new, self._new, self._new, self._upload])()
        else:
            (act,) = self._rng.choices(acts, weights)
            act(self._rng.choice(files))

    def load(self) -> None:
        """More files at once than a person saves; or a folder of such goes away."""
        folder = self.root / "load"
        if folder.exists():
            shutil.rmtree(folder)
        else:
            for n in range(MANY + 10):
                self._write(folder / f"{self._rng.getrandbits(32):08x}-{n}.md")

    def _new(self) -> None:
        self._write(self._somewhere())

    def _upload(self) -> None:
        """As the server does it; or one is deleted."""
        there = sorted(self.uploads.iterdir())
        if len(there) > 5:
            shutil.rmtree(self._rng.choice(there))
            return
        folder = self.uploads / f"file-{self._rng.getrandbits(96):024x}"
        part = folder / ".note.md.part"
        self._write(part)
        part.replace(folder / "note.md")

    def _edit(self, file: Path) -> None:
        self._write(file)

    def _save(self, file: Path) -> None:
        """As editors do: beside, then renamed over the old one."""
        draft = file.with_name(f".{file.name}.draft")
        self._write(draft)
        draft.replace(file)

    def _rename(self, file: Path) -> None:
        target = self._somewhere()
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)

    def _delete(self, file: Path) -> None:
        file.unlink()

    def _write(self, file: Path) -> None:
        word = f"zq{len(self.words)}x{self._rng.getrandbits(40):010x}"
        self.words.append(word)
        # Now and then a text of many passages, whose storing takes a while.
        many = self._rng.choice([1, 1, 1, 5, 60])
        lines = (f"## Part {n}\n\nSomething about {word} and its part {n}." for n in range(many))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(lines), encoding="utf-8")

    def _somewhere(self) -> Path:
        folder = self.root / self._rng.choice(["", "", "a", "b", "a/c"])
        return folder / f"f{self._rng.getrandbits(32):08x}.md"
