"""Scalars: TensorBoard's event files, written without TensorBoard.

A file is a row of records (TFRecord), each a protocol buffer `Event`:

    record   length u64 | masked crc(length) u32 | data | masked crc(data) u32     little endian
    Event    1: wall_time double, 2: step int64, 3: file_version string, 5: Summary
    Summary  1: Value, repeated;   Value  1: tag string, 2: simple_value float

crc is CRC-32C (Castagnoli, polynomial 0x82F63B78 reflected), masked: rotate right by 15 and add
0xA282EAD8. Formats: tensorflow/core/util/event.proto, lib/io/record_writer.h.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

POLYNOMIAL, MASK = 0x82F63B78, 0xA282EAD8


class ScalarWriter:
    """Appends scalars to a new event file in a folder, until it is closed."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._stream = (folder / name).open("ab")
        self._record(_double(1, time.time()) + _text(3, "brain.Event:2"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one step."""
        entries = (_text(1, tag) + _float(2, value) for tag, value in values.items())
        summary = b"".join(_bytes(1, entry) for entry in entries)
        self._record(_double(1, time.time()) + _integer(2, step) + _bytes(5, summary))

    def _record(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        self._stream.write(length + _masked(length) + data + _masked(data))
        self._stream.flush()


def checksum(data: bytes) -> int:
    """CRC-32C."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_table_entry(byte) for byte in range(256))


def _masked(data: bytes) -> bytes:
    value = checksum(data)
    rotated = (value >> 15 | value << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + MASK) & 0xFFFFFFFF)


def _variable(number: int) -> bytes:
    """A non-negative integer in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _integer(field: int, value: int) -> bytes:
    return _variable(field << 3) + _variable(value)


def _double(field: int, value: float) -> bytes:
    return _variable(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _variable(field << 3 | 2) + _variable(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _float(field: int, value: float) -> bytes:
    return _variable(field << 3 | 5) + struct.pack("<f", value)
