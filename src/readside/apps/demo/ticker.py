"""A line that moves: in place on a terminal, now and then in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

#: Seconds between two lines where a line cannot be overwritten.
_EVERY = 5.0


class Ticker:
    """Shows the newest of many lines, and always the last."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())
            if console.is_terminal and not console.quiet
            else None
        )
        self._shown_at = time.monotonic()

    def show(self, line: str, *, last: bool) -> None:
        """Show a line; in a pipe only the last, and one every few seconds."""
        if self._live is not None:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif last or time.monotonic() - self._shown_at > _EVERY:
            self._console.print(line)
            self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
