"""Source: one file of another tool, read at the door: found, unpacked, decoded, not too large.

A file ending in .gz (or that begins like one) is unpacked. Sizes are bounded before and after
unpacking: a trace of a few steps has a few hundred megabytes, and a file that unpacks to much
more is damaged or was made to fill the memory.
"""

import functools
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.spec.documents import InputError
from planner.spec.units import format_bytes

GZIP = b"\x1f\x8b"
MOST_BYTES = 1 << 30
"""Beyond this a file is refused; a JSON text of this size already needs some ten times as much
memory."""


@dataclass(frozen=True, eq=False)
class Source:
    """The text of a file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    @functools.cached_property
    def json(self) -> Any:
        """The text as JSON, parsed once. Raises InputError that says where it breaks."""
        try:
            return json.loads(self.text, strict=False)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{self.path}: line {error.lineno}: not valid JSON: {error.msg}; was the file cut "
                f"off? write or copy it again"
            ) from None
        except (RecursionError, ValueError) as error:
            raise InputError(f"{self.path}: JSON that cannot be read: {error}") from None

    def mapping(self) -> Mapping[str, Any]:
        """The text as a JSON object. Raises InputError."""
        data = self.json
        if not isinstance(data, dict):
            raise InputError(
                f"{self.path}: holds a JSON {type(data).__name__}; an object {{...}} is needed"
            )
        return data


def read(path: Path) -> Source:
    """Read a file. Raises InputError for one that is missing, empty, huge or not text."""
    data = _unpacked(path, _bytes(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not UTF-8 text; give the tool's text or JSON output, "
            f"not a binary file"
        ) from None
    if not text.strip():
        raise InputError(f"{path}: is empty; run the tool again and keep its output")
    return Source(path, text)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _too_large(path, f"holds {format_bytes(size)}")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _unpacked(path: Path, data: bytes) -> bytes:
    if not data.startswith(GZIP):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: damaged gzip file: {error}; was it cut off? copy it again"
        ) from None
    if len(unpacked) > MOST_BYTES:
        raise _too_large(path, f"unpacks to more than {format_bytes(MOST_BYTES)}")
    return unpacked


def _too_large(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: {what}, more than the {format_bytes(MOST_BYTES)} that are read; record fewer "
        f"steps, or cut the file"
    )
