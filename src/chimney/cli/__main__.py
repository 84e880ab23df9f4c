"""The entry point: `chimney` and `python -m chimney.cli`."""

import os

from chimney.cli.app import app


def main() -> None:
    """Runs the command line; ends the process with its exit status."""
    # Debian keeps nft and ip out of an ordinary user's path.
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    app(prog_name="chimney")


if __name__ == "__main__":
    main()
