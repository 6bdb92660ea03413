"""Releases that come with the house: put where a home's own are, for whoever wants to serve them.

`kb/shipped/ID/` is a release's folder as `kb.release` makes them; `make release-bundled` makes it
anew. Imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path

from kb import release

FOLDER = Path(__file__).with_name("shipped")


def bring(home: Path, base: str, folder: Path = FOLDER) -> Sequence[str]:
    """Copy those of this base that `home` has not; their ids. Raises BadData for a damaged one."""
    brought = []
    for place in sorted(file.parent for file in folder.glob(f"*/{release.MANIFEST}")):
        if release.folder(home, place.name).exists() or release.peek(place).base.name != base:
            continue
        manifest = release.read(place)
        parts = {path.name: path for path in place.iterdir() if path.name != release.MANIFEST}
        release.write(home, manifest, parts)
        brought.append(manifest.id)
    return brought
