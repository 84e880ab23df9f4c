"""The entry point: `chimney` and `python -m chimney.cli`."""

from chimney.cli.app import app


def main() -> None:
    """Runs the command line; ends the process with its exit status."""
    app(prog_name="chimney")


if __name__ == "__main__":
    main()
