"""Releases that come with the house: put where a home's own are, and served until somebody chooses.

`kb/shipped/ID/` is a release's folder as `kb.release` makes them; `make release-bundled` makes it
anew. Whether one fits what is served is for the caller to find out. Imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path

from kb import release
from kb.manifest import BASE, Manifest

FOLDER = Path(__file__).with_name("shipped")


def of(base: str, folder: Path = FOLDER) -> Sequence[Manifest]:
    """Those of this base, the newest last. Raises BadData for one that cannot be read."""
    manifests = (release.peek(file.parent) for file in folder.glob(f"*/{release.MANIFEST}"))
    return sorted((m for m in manifests if m.base.name == base), key=lambda m: m.created)


def bring(home: Path, manifest: Manifest, folder: Path = FOLDER) -> bool:
    """Copy one to `home`; False if a release of that name is there. Raises BadData if damaged."""
    if release.folder(home, manifest.id).exists():
        return False
    place = folder / manifest.id
    parts = {path.name: path for path in place.iterdir() if path.name != release.MANIFEST}
    release.write(home, release.read(place), parts)
    return True


def begin(home: Path, manifest: Manifest) -> bool:
    """Make one that was brought current; False where somebody has chosen. A rollback leads to the
    base."""
    if release.is_chosen(home):
        return False
    release.succeed(home, [manifest.id, BASE])
    return True
