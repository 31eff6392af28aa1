"""Event files are read back by hand: TensorBoard is not installed where the tests run."""

import struct
from pathlib import Path

from executor.training.scalars import MASK, ScalarWriter, checksum


def test_checksum_of_the_standard() -> None:
    """RFC 3720, appendix B.4, and the check value of the polynomial's catalogue."""
    assert checksum(b"123456789") == 0xE3069283
    assert checksum(bytes(32)) == 0x8A9136AA


def records(path: Path) -> list[bytes]:
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        data = content[12 : 12 + length]
        for covered, at in ((content[:8], 8), (data, 12 + length)):
            (stored,) = struct.unpack_from("<I", content, at)
            rotated = (stored - MASK) & 0xFFFFFFFF
            assert (rotated << 15 | rotated >> 17) & 0xFFFFFFFF == checksum(covered)
        found.append(data)
        content = content[16 + length :]
    return found


def test_records_hold_tags_and_values(tmp_path: Path) -> None:
    with ScalarWriter(tmp_path) as writer:
        writer.add(3, {"loss": 1.5, "rate": 0.25})
        writer.add(300, {"loss": 0.5})
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, first, second = records(path)
    assert version.endswith(b"brain.Event:2")
    assert b"\x10\x03" in first
    assert b"\x0a\x04loss\x15" + struct.pack("<f", 1.5) in first
    assert b"\x0a\x04rate\x15" + struct.pack("<f", 0.25) in first
    assert b"\x10\xac\x02" in second
