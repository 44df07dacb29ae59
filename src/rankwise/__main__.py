"""python -m rankwise, and the `rankwise` command."""

import sys


def main() -> None:
    """Start the command line; Ctrl-C while it still loads is told as anywhere else."""
    try:
        from rankwise.cli import main as face
    except KeyboardInterrupt:
        sys.stderr.write("stopped: stopped by Ctrl-C\n")
        sys.exit(1)
    face()


if __name__ == "__main__":
    main()
