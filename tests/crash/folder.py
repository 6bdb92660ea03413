"""What people and programs do to a watched folder, drawn by chance; remembers every word it wrote.

Each version of a file holds one word that nothing else holds, so that a search for it tells which
version is known. Knows nothing of the writer.
"""

import random
from pathlib import Path

MOST = 60
"""Files kept at most, so that a round stays short."""


class Folder:
    """A folder with subfolders, and the words of all versions that ever lay in it."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self._rng = rng
        self.words: list[str] = []
        root.mkdir(parents=True, exist_ok=True)

    def files(self) -> dict[str, str]:
        """Relative path -> text of what lies there now."""
        paths = (p for p in self.root.rglob("*.md") if not p.name.startswith("."))
        return {p.relative_to(self.root).as_posix(): p.read_text("utf-8") for p in paths}

    def happen(self) -> None:
        """One random thing."""
        files = sorted(p for p in self.root.rglob("*.md") if not p.name.startswith("."))
        acts = [self._edit, self._save, self._rename, self._delete]
        weights = [3, 2, 2, 2 if len(files) < MOST else 9]
        if not files or self._rng.random() < 0.4:
            self._write(self._somewhere())
        else:
            (act,) = self._rng.choices(acts, weights)
            act(self._rng.choice(files))

    def _edit(self, file: Path) -> None:
        self._write(file)

    def _save(self, file: Path) -> None:
        """As editors do: beside, then renamed over the old one."""
        draft = file.with_name(f".{file.name}.draft")
        self._write(draft)
        draft.replace(file)

    def _rename(self, file: Path) -> None:
        file.rename(self._somewhere())

    def _delete(self, file: Path) -> None:
        file.unlink()

    def _write(self, file: Path) -> None:
        word = f"zq{len(self.words)}x{self._rng.getrandbits(40):010x}"
        self.words.append(word)
        # Now and then a text of many passages, whose storing takes a while.
        many = self._rng.choice([1, 1, 1, 5, 60])
        lines = (f"## Part {n}\n\nSomething about {word} and its part {n}." for n in range(many))
        file.write_text("\n\n".join(lines), encoding="utf-8")

    def _somewhere(self) -> Path:
        folder = self.root / self._rng.choice(["", "", "a", "b", "a/c"])
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"f{self._rng.getrandbits(32):08x}.md"
