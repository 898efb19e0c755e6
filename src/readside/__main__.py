"""``python -m readside`` is ``readside``."""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point of the ``readside`` command."""
    # While the rest is imported, Ctrl-C ends the process without a traceback. A parent that
    # has us ignore it (a shell's background job) is heeded.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from readside.apps.cli import main as command  # noqa: PLC0415 - after the signal

    command()


if __name__ == "__main__":
    main()
