"""The release that comes with the house, for homes that have none.

`kb/shipped/ID/` is a release's folder as `kb.release` makes them; `make release-bundled` makes it
anew. Whether it fits what is served is for the caller to find out. Imports no torch.
"""

from pathlib import Path

from kb import release
from kb.errors import AlreadyExists
from kb.manifest import BASE, Manifest

FOLDER = Path(__file__).with_name("shipped")


def offered(home: Path, base: str, folder: Path = FOLDER) -> Manifest | None:
    """The newest shipped release of this base, while nobody has chosen what `home` serves."""
    if (home / "releases" / "current").exists():
        return None
    manifests = (release.peek(one.parent) for one in folder.glob(f"*/{release.MANIFEST}"))
    fitting = [one for one in manifests if one.base.name == base]
    return max(fitting, key=lambda one: one.created, default=None)


def adopt(home: Path, manifest: Manifest, folder: Path = FOLDER) -> None:
    """Copy it into `home` and make it current; a rollback leads to the base. Raises BadData."""
    place = folder / manifest.id
    release.read(place)
    parts = {path.name: path for path in place.iterdir() if path.name != release.MANIFEST}
    try:
        release.write(home, manifest, parts)
    except AlreadyExists:
        release.read(release.folder(home, manifest.id))  # of a start that was cut off
    release.succeed(home, [manifest.id, BASE])
