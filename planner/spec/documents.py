"""Documents: frozen pydantic models that are validated once, on reading.

Every document carries `schema` (`"plan/1"`), refuses unknown keys and reports all its errors
at once, each with the file, the key, the value and the way out. A field whose name ends in a
unit (`memory_bytes`, `bandwidth_bytes_per_second`, `peak_flops`, `latency_seconds`) takes a
number in that unit or a string with a unit; the same key without the unit (`memory: 80GiB`)
takes only a string with a unit, because a bare number there would be a guess.

`load(save(x)) == x` holds for every document. Writing goes to a temporary name beside the
target, then renames, so an interrupted run never leaves half a file. A link leads to the file that
is replaced; what is neither file nor folder (/dev/null, a pipe) is written to.
"""

import difflib
import functools
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from planner.spec import units

UNIT_SUFFIXES: dict[str, tuple[Callable[[str], float], str]] = {
    "_bytes_per_second": (units.parse_bytes_per_second, "900GB/s or 400Gb/s"),
    "_bytes": (units.parse_bytes, "80GiB"),
    "_flops": (units.parse_flops, "989TFLOP/s"),
    "_seconds": (units.parse_seconds, "5us"),
}


class InputError(Exception):
    """Bad input from outside: the message names the file, key, value and remedy."""


class _Refused:
    """A value that cannot be read as its field's unit; fails validation with its own message."""

    def __init__(self, message: str) -> None:
        self.message = message


class Frozen(pydantic.BaseModel):
    """An immutable value that refuses unknown keys and reads units at the door."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_units(cls, data: Any) -> Any:
        return _with_units(cls, data) if isinstance(data, Mapping) else data

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated again."""
        return type(self).model_validate({**dict(self), **changes})


class Document(Frozen):
    """A Frozen value that lives in a file and names its schema."""

    SCHEMA: ClassVar[str]

    @pydantic.model_serializer(mode="wrap")
    def _with_schema(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"schema": self.SCHEMA, **handler(self)}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check_schema(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "schema" not in data:
            return data
        if data["schema"] != cls.SCHEMA:
            raise ValueError(
                f"schema is {data['schema']!r}, a {cls.SCHEMA!r} document is needed here; give "
                f"one, or make it again if another version of meshwright wrote it"
            )
        return {key: value for key, value in data.items() if key != "schema"}


Doc = TypeVar("Doc", bound=Document)


def _with_units(cls: type[Frozen], data: Mapping[str, Any]) -> dict[str, Any]:
    stems = _stems(cls)
    read: dict[str, Any] = {}
    for key, value in data.items():
        name = stems.get(key, key) if key not in cls.model_fields else key
        if name in read or (name != key and name in data):
            raise ValueError(f"{key!r} and {name!r} say the same thing; keep one of them")
        read[name] = _quantity(key, name, value) if name in cls.model_fields else value
    return read


@functools.cache
def _stems(cls: type[Frozen]) -> dict[str, str]:
    """Keys without their unit, to the fields they mean."""
    return {name[: -len(s)]: name for name in cls.model_fields if (s := _suffix(name))}


@functools.cache
def _suffix(name: str) -> str | None:
    return next((s for s in UNIT_SUFFIXES if name.endswith(s) and name != s[1:]), None)


def _quantity(key: str, name: str, value: Any) -> Any:
    suffix = _suffix(name)
    if suffix is None:
        return value
    parse, example = UNIT_SUFFIXES[suffix]
    if isinstance(value, str):
        try:
            return parse(value)
        except units.UnitError as error:
            return _Refused(str(error))
    if key != name and isinstance(value, Mapping):
        return {inner: _quantity(f"{key}.{inner}", name, item) for inner, item in value.items()}
    if key != name and isinstance(value, int | float) and not isinstance(value, bool):
        return _Refused(f"{value!r} has no unit; write {key}: {example}, or {name}: {value!r}")
    return value


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one mapping. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        data = json.loads(text) if path.suffix == ".json" else YAML(typ="safe").load(text)
    except (ValueError, RecursionError, YAMLError) as error:  # also endless numbers and nesting
        raise InputError(f"{path}: not valid {path.suffix[1:] or 'YAML'}: {error}") from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise InputError(f"{path}: holds {kind}; a document is a mapping of keys to values")
    return data


def load(cls: type[Doc], path: Path | str) -> Doc:
    """Read one document from YAML or JSON. Raises InputError with every problem found."""
    path = Path(path)
    return parse(cls, read_mapping(path), str(path))


def parse(cls: type[Doc], data: Mapping[str, Any], where: str) -> Doc:
    """Validate a mapping as a document. Raises InputError that names `where`."""
    try:
        return cls.model_validate(data)
    except pydantic.ValidationError as error:
        raise InputError(explain(cls, error, where)) from None


def explain(cls: type[Frozen], error: pydantic.ValidationError, where: str) -> str:
    """Render every problem of a validation error, one line each."""
    lines = [f"{where}: {_one(cls, problem)}" for problem in error.errors(include_url=False)]
    return "\n".join(lines)


def _one(cls: type[Frozen], problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"]) or "document"
    value = problem.get("input")
    if problem["type"] == "extra_forbidden":
        return f"{location}: unknown key{_did_you_mean(cls, problem['loc'])}"
    if problem["type"] == "missing":
        return f"{location}: missing; add this key"
    if isinstance(value, _Refused):
        return f"{location}: {value.message}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = "" if isinstance(value, Mapping | list | tuple) else f" {value!r}:"
    return f"{location}:{shown} {message[0].lower() + message[1:] if message else message}"


def _did_you_mean(cls: type[Frozen], loc: tuple[int | str, ...]) -> str:
    owner: Any = cls
    for part in loc[:-1]:
        owner = _inner(owner, part)
    names = list(getattr(owner, "model_fields", {}))
    stems = [name[: -len(s)] for name in names if (s := _suffix(name))]
    close = difflib.get_close_matches(str(loc[-1]), names + stems, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(names)}" if names else ""


def _inner(owner: Any, part: int | str) -> Any:
    field = getattr(owner, "model_fields", {}).get(part)
    annotation = field.annotation if field is not None else owner
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, pydantic.BaseModel):
            return candidate
    return annotation


def save(document: Document, path: Path | str) -> Path:
    """Write a document as JSON, atomically. Raises InputError if the place cannot be written."""
    return write_text(path, document.model_dump_json(indent=1) + "\n")


def check_place(path: Path | str) -> None:
    """Raise InputError unless a file can be written there: before the work, not after it."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file")
        if _is_special(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def _is_special(path: Path) -> bool:
    """Whether writing beside and renaming would put a file in the place of a device or pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {error.strerror or error}; give another place")


def write_text(path: Path | str, text: str) -> Path:
    """Write text under a temporary name, then rename: no reader ever sees half a file."""
    given, path = Path(path), Path(os.path.realpath(path))
    try:
        if _is_special(path):
            path.write_text(text, encoding="utf-8")
            return given
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(given, error) from None
    return given
