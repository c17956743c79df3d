"""A disk that can lose its power: a QEMU machine reaches it by NBD, and what was not flushed may be gone.

As flash and drives do, it answers a write when that is in its own memory, and keeps it for certain when a flush has
been answered. A power cut leaves some of the pages of 4 KiB that were waiting, in no order, and drops the others. A
page itself is old or new: one that is half of each, a commit of its journal, ext4 takes for a broken disk, which it
does not mount.
The protocol is https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, as far as QEMU speaks it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from pathlib import Path
from typing import BinaryIO

SECTOR = 512  # bytes; what is read and written at least
PAGE = 8  # sectors
MOST = 32 * 1024 * 1024  # bytes of one request; QEMU sends no more
SURVIVAL = (0.0, 0.5, 0.9, 1.0)  # the share of the waiting pages that a cut leaves, one of these at a time

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
OPT_ABORT, OPT_INFO, OPT_GO = 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, (1 << 31) + 1
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
EINVAL = 22


class Disk:
    """The content is the file `image`; sectors that wait are in memory only."""

    def __init__(self, image: Path, socket_path: Path) -> None:
        self.image = image
        self.address = f"nbd+unix:///?socket={socket_path}"
        self.flushes = 0
        self._file = os.open(image, os.O_RDWR)
        self._size = os.fstat(self._file).st_size
        self._waiting: dict[int, bytes] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(socket_path))
        self._listener.listen(1)
        self._server: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._left = 0  # requests until it is silent; 0: nobody counts
        self.is_silent = threading.Event()

    def plug(self) -> None:
        """Serves the one machine that connects next."""
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def fall_silent(self, requests: int) -> None:
        """The last of so many writes and flushes is begun, but neither finished nor answered, and no other is."""
        self.is_silent.clear()
        self._left = requests

    def unplug(self) -> None:
        """Waits until the machine, which has ended, is served no more."""
        if self._server:
            self._server.join(30)
            if self._server.is_alive():
                raise AssertionError("the machine has ended, but still holds its disk")
        self._server = None
        if self._failure:
            raise self._failure

    def cut(self, dice: random.Random) -> tuple[int, int]:
        """The power fails. Says how many sectors were waiting, and how many of them came through."""
        self.unplug()
        waiting, self._waiting = self._waiting, {}
        share = dice.choice(SURVIVAL)
        pages = [page for page in sorted({number // PAGE for number in waiting}) if dice.random() < share]
        lucky = {number: data for number, data in waiting.items() if number // PAGE in pages}
        self._write_out(lucky)
        return len(waiting), len(lucky)

    def power_off(self) -> None:
        """An orderly end: a drive then writes out what it has."""
        self.unplug()
        waiting, self._waiting = self._waiting, {}
        self._write_out(waiting)

    def close(self) -> None:
        self._listener.close()
        os.close(self._file)

    def _write_out(self, sectors: dict[int, bytes]) -> None:
        for number, data in sectors.items():
            os.pwrite(self._file, data, number * SECTOR)

    def _serve(self) -> None:
        try:
            # A machine that was killed leaves half a request behind.
            with (
                contextlib.suppress(EOFError, ConnectionError),
                self._listener.accept()[0] as connection,
                connection.makefile("rb") as source,
            ):
                if self._agree(connection, source):
                    self._answer(connection, source)
        except BaseException as failure:
            self._failure = failure

    def _agree(self, connection: socket.socket, source: BinaryIO) -> bool:
        """The handshake; False when the other side does not want the disk."""
        connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        exactly(source, 4)
        while True:
            option, length = struct.unpack(">8xII", exactly(source, 16))
            exactly(source, length)

            def reply(kind: int, data: bytes = b"", to: int = option) -> None:
                connection.sendall(struct.pack(">QIII", 0x3E889045565A9, to, kind, len(data)) + data)

            if option in (OPT_GO, OPT_INFO):
                # Kind of information (0, the export), size, flags.
                reply(REP_INFO, struct.pack(">HQH", 0, self._size, HAS_FLAGS | SEND_FLUSH | SEND_FUA))
                reply(REP_ACK)
                if option == OPT_GO:
                    return True
            elif option == OPT_ABORT:
                reply(REP_ACK)
                return False
            else:
                reply(REP_ERR_UNSUP)

    def _answer(self, connection: socket.socket, source: BinaryIO) -> None:
        while True:
            flags, kind, cookie, offset, length = struct.unpack(">4xHHQQI", exactly(source, 28))
            data = exactly(source, length) if kind == WRITE else b""
            error, answer = 0, b""
            if kind == DISCONNECT:
                return
            if self._left and kind in (WRITE, FLUSH):
                self._left -= 1
                if not self._left:
                    self._waiting |= sectors_of(offset, data)
                    self.is_silent.set()
                    while source.read(MOST):
                        pass
                    return
            if kind == FLUSH:
                self.flushes += 1
                self._write_out(self._waiting)
                self._waiting = {}
            elif kind not in (READ, WRITE) or length > MOST or offset % SECTOR or length % SECTOR:
                error = EINVAL
            elif kind == READ:
                answer = self._read(offset, length)
            else:
                sectors = sectors_of(offset, data)
                self._waiting |= sectors
                if flags & FUA:
                    self._write_out(sectors)
                    for number in sectors:
                        del self._waiting[number]
            connection.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + answer)

    def _read(self, offset: int, length: int) -> bytes:
        data = bytearray(os.pread(self._file, length, offset))
        if self._waiting:
            for at in range(0, length, SECTOR):
                if sector := self._waiting.get((offset + at) // SECTOR):
                    data[at : at + SECTOR] = sector
        return bytes(data)


def sectors_of(offset: int, data: bytes) -> dict[int, bytes]:
    return {(offset + at) // SECTOR: data[at : at + SECTOR] for at in range(0, len(data), SECTOR)}


def exactly(source: BinaryIO, length: int) -> bytes:
    data = source.read(length)
    if len(data) < length:
        raise EOFError
    return data
