"""The machine's serial console: kept in a file, searched, written to, and connected to a person's terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

RECENT = 64 * 1024  # bytes of output that are kept for searching
ESCAPE = b"\x1d"  # ctrl-], as telnet has it


class Console:
    """Reads what the machine prints, in a thread of its own: a full pipe would stop the machine."""

    def __init__(self, output: BinaryIO, input_: BinaryIO, log: Path) -> None:
        self._output, self._input = output, input_
        self._recent = b""
        self._changed = threading.Condition()
        self._sink: Callable[[bytes], object] | None = None
        self._log = log.open("wb", buffering=0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, data: str | bytes) -> None:
        """Types; to a machine that is gone nothing can be said."""
        with contextlib.suppress(BrokenPipeError):
            self._input.write(data.encode() if isinstance(data, str) else data)
            self._input.flush()

    def text(self) -> str:
        with self._changed:
            return self._recent.decode(errors="replace").replace("\r", "")

    def wait_for(self, pattern: str, timeout: float) -> bool:
        """Whether the pattern stands in the recent output, now or before the time is over."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not re.search(pattern.encode(), self._recent):
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return bool(re.search(pattern.encode(), self._recent))
        return True

    def close(self) -> None:
        self._reader.join(5)
        self._log.close()
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):
                stream.close()

    def attach(self, is_alive: Callable[[], bool]) -> None:
        """Connects the person's terminal until the machine ends or ctrl-] is typed."""
        terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
        before = termios.tcgetattr(terminal) if terminal is not None else []
        source: int | None = sys.stdin.fileno()
        with self._changed:
            _write_out(self._recent)
            self._sink = _write_out
        try:
            if terminal is not None:
                tty.setraw(terminal)
            while is_alive():
                ready, _, _ = select.select([] if source is None else [source], [], [], 0.2)
                if not ready or source is None:
                    continue
                typed = os.read(source, 1024)
                if not typed:
                    source = None  # the input has ended, the machine has not
                elif ESCAPE in typed:
                    return
                else:
                    self.send(typed)
        finally:
            self._sink = None
            if terminal is not None:
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)
                print(file=sys.stderr)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._output.fileno(), 65536)
            except OSError:
                data = b""
            if not data:
                return
            with contextlib.suppress(OSError):  # a full disk must not stop the machine
                self._log.write(data)
            with self._changed:
                self._recent = (self._recent + data)[-RECENT:]
                self._changed.notify_all()
                if self._sink:
                    self._sink(data)


def _write_out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
