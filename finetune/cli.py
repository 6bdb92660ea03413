"""The `finetune` command line: says plainly that this room is not built yet."""

import sys

MESSAGE = """finetune: training is not part of this version.
The server answers with the base model that [engine] model names. CHANGELOG.md says what is."""


def main() -> int:
    """Entry point. Always 1: there is nothing that could be done."""
    print(MESSAGE, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
