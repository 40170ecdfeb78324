"""`python -m reidcore` is the command `reid`."""

import sys


def start() -> int:
    """Run the command `reid`, of which Ctrl-C may interrupt the imports too."""
    try:
        from reidcore.cli.interrupts import ignore, seen, tell, watch
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    try:
        watch()
        from reidcore.cli.main import main
        from reidcore.cli.streams import prepare_streams

        prepare_streams()
        code = main()
        ignore()
        return code
    except KeyboardInterrupt:
        return tell()
    except Exception:
        if not seen():
            raise
        return tell()


if __name__ == "__main__":
    sys.exit(start())
