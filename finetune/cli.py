"""The `finetune` command line: reads the configuration, calls one module, prints what it returns.

Exit codes: 0 done, 1 failed, 2 the gate said no, 3 bad configuration or data.
"""

import sys

import typer

from finetune import cli_data, cli_train
from kb.errors import BadConfiguration, BadData, VademecumError

cli = typer.Typer(
    help="Train the model of a field, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback()
def _group() -> None:
    """A group also while it has one command."""


cli_data.register(cli)
cli_train.register(cli)


def main() -> int:
    """Entry point; turns errors into one line and the right exit code."""
    try:
        cli(standalone_mode=False)
    except (BadConfiguration, BadData) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except VademecumError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except typer.Exit as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
