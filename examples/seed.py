"""Put the sample handbook into an empty home, so that a first `make up` has something to answer.

Does nothing once the home has a knowledge base or the folder holds anything: what users put there
is theirs.
"""

import shutil
import sys
from pathlib import Path

SAMPLE = Path(__file__).with_name("handbook")


def seed(home: Path) -> bool:
    """Copy the sample into `home/docs`; False if the home is in use."""
    docs = home / "docs"
    if (home / "kb").exists() or (docs.exists() and any(docs.iterdir())):
        return False
    shutil.copytree(SAMPLE, docs, dirs_exist_ok=True)
    return True


if __name__ == "__main__":
    if seed(Path(sys.argv[1])):
        print(f"copied the sample handbook into {sys.argv[1]}/docs", file=sys.stderr)
