"""Catalog: what the words MODEL, CLUSTER and RUNTIME on the command line mean.

A word is the name of an entry in planner/catalog, or a path to a document:

    MODEL    llama3.1-8b | config.json or its folder | what `show model` printed (model/1) |
             an architecture/1 document
    CLUSTER  h100-sxm | h100-sxm:8 (eight nodes) | a cluster/1 document
    RUNTIME  native | a runtime/1 document
    --calibration  a calibration/1 document | none; without it the nearest of the catalog

Names may be written with other separators (`Llama-3.1-8B`, `H100_SXM:8`, `megatron core`).
A word that ends in .json, .yaml or .yml or holds a slash is a path; a folder that bears the
name of an entry is read as `./gpt2`. In a cluster/1 document, `accelerator` may be the name
of a catalog entry instead of a whole accelerator.
One entry is one file, and only that file (with its folder's index) is read to find it.
"""

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

from planner.spec import documents, huggingface
from planner.spec.calibration import Calibration
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import Doc, InputError
from planner.spec.model import ModelSpec
from planner.spec.node import Node, make_cluster
from planner.spec.runtime import Runtime

FOLDER = Path(__file__).resolve().parent.parent / "catalog"
SUFFIXES = (".json", ".yaml", ".yml")
MOST_NODES = 1_000_000
"""Assumed: far beyond what exists, and still planned in a minute."""


def list_models() -> tuple[str, ...]:
    """Names of the models in the catalog, sorted."""
    return _names("models", ".json")


def list_clusters() -> tuple[str, ...]:
    """Names of the node designs in the catalog, sorted; `NAME:NODES` makes a cluster of them."""
    return _names("clusters", ".yaml")


def list_accelerators() -> tuple[str, ...]:
    """Names of the devices in the catalog, sorted."""
    return _names("accelerators", ".yaml")


def list_runtimes() -> tuple[str, ...]:
    """Names of the runtimes in the catalog, sorted."""
    return _names("runtimes", ".yaml")


def find_model(text: str) -> ModelSpec:
    """The model of a catalog name, an HF config.json (or its folder) or an architecture/1 document.

    Raises InputError.
    """
    if name := _entry(text, list_models()):
        return _catalog_model(name)
    if not _is_path(text):
        raise _unknown("model", text, list_models(), "the path of a config.json")
    path = Path(text)
    return _model_file(path / "config.json" if path.is_dir() else path)


def find_cluster(text: str) -> ClusterSpec:
    """The cluster of a catalog name (`h100-sxm`, `h100-sxm:8`) or a cluster/1 document.

    Raises InputError; also for `local`, which needs a profile (planner.spec.local).
    """
    if text == "local":
        raise InputError(
            "cluster 'local' is this machine and needs its profile; "
            "run `meshwright profile -o profile.json` and pass --profile profile.json"
        )
    word, colon, nodes = text.partition(":")
    name = _entry(word, list_clusters())
    if name is None:
        if _is_path(text):
            return _cluster_file(Path(text))
        raise _unknown("cluster", word, list_clusters(), "the path of a cluster/1 document")
    node = find_node(name)
    return make_cluster(node, find_accelerator(node.accelerator), _count(text, nodes, bool(colon)))


def find_node(name: str) -> Node:
    """The node design of a catalog name (one of list_clusters). Raises InputError."""
    return documents.load(Node, FOLDER / "clusters" / f"{name}.yaml")


def find_accelerator(text: str) -> Accelerator:
    """The device of a catalog name or an accelerator/1 document. Raises InputError."""
    return _find(Accelerator, text, "accelerators", list_accelerators)


def find_runtime(text: str) -> Runtime:
    """The runtime of a catalog name or a runtime/1 document. Raises InputError."""
    return _find(Runtime, text, "runtimes", list_runtimes)


def list_calibrations() -> tuple[str, ...]:
    """Pairs ACCELERATOR--RUNTIME that have a calibration of their own, sorted."""
    return _names("calibrations", ".json")


def find_calibration(accelerator: Accelerator, runtime: str) -> Calibration | None:
    """The calibration of a pair, or the nearest one of the catalog `borrowed_for` it, or None.

    Nearest: of the same runtime, else of its family; then the device whose architecture came out
    in the nearest year; then the most alike runtime.
    """
    pairs = [name.partition("--")[::2] for name in list_calibrations()]
    index = documents.read_mapping(FOLDER / "calibrations" / "index.yaml")
    family = [runtime, *index["families"].get(runtime, ())]
    years = index["architectures"]
    known = [(device, software) for device, software in pairs if software in family]
    if not known or accelerator.name not in years:
        return None

    def distance(pair: tuple[str, str]) -> tuple[bool, bool, int, int, int]:
        device, software = pair
        apart = abs(years[device] - years[accelerator.name])
        other = device != accelerator.name
        return software != runtime, other, apart, family.index(software), -years[device]

    device, software = min(known, key=distance)
    found = documents.load(Calibration, FOLDER / "calibrations" / f"{device}--{software}.json")
    if (device, software) == (accelerator.name, runtime):
        return found
    reached = index["attention"]
    newer = years[accelerator.name] > years[device] and {accelerator.name, device} <= set(reached)
    attention = reached[accelerator.name] / reached[device] if newer else 1.0
    if software != runtime:
        attention *= index["kernels"].get(runtime, 1.0) / index["kernels"].get(software, 1.0)
    matmul = _matmul_ratio(accelerator, device)
    return found.borrowed_for(accelerator.name, runtime, matmul, attention)


def _matmul_ratio(accelerator: Accelerator, other: str) -> float:
    """Of the best published matrix products over the peaks, 1 where either is unknown."""
    lender = find_accelerator(other)
    if not (accelerator.matmul_flops and lender.matmul_flops):
        return 1.0
    return accelerator.matmul_efficiency / lender.matmul_efficiency


def accelerator_of(device_name: str) -> Accelerator | None:
    """The catalog's device that the driver calls so (`NVIDIA H200`), if it is known."""
    names = documents.read_mapping(FOLDER / "accelerators" / "index.yaml")["device_names"]
    return find_accelerator(names[device_name]) if device_name in names else None


def _names(folder: str, suffix: str) -> tuple[str, ...]:
    entries = (path for path in (FOLDER / folder).iterdir() if path.suffix == suffix)
    return tuple(sorted(path.stem for path in entries if path.stem != "index"))


def _entry(text: str, names: tuple[str, ...]) -> str | None:
    """The entry that a word means: its name, or the only one that differs in separators alone."""
    if (name := text.lower()) in names:
        return name
    alike = [each for each in names if _joined(each) == _joined(name)]
    return alike[0] if len(alike) == 1 and not _is_path(text) else None


def _joined(name: str) -> str:
    return re.sub(r"[-_\s]+", "", name)


def _is_path(text: str) -> bool:
    return text.endswith(SUFFIXES) or "/" in text or "\\" in text or os.path.isdir(text)


def _find(cls: type[Doc], text: str, folder: str, names: Callable[[], tuple[str, ...]]) -> Doc:
    if name := _entry(text, names()):
        return documents.load(cls, FOLDER / folder / f"{name}.yaml")
    if _is_path(text):
        return documents.load(cls, text)
    raise _unknown(folder[:-1], text, names(), f"the path of a {cls.SCHEMA} document")


def _catalog_model(name: str) -> ModelSpec:
    spec = _model_file(FOLDER / "models" / f"{name}.json")
    facts = documents.read_mapping(FOLDER / "models" / "index.yaml").get(name, {})
    return spec.replace(
        source=facts.get("source", ""),
        published_parameters=facts.get("published_parameters"),
        published_buffers=facts.get("published_buffers", 0),
    )


def _model_file(path: Path) -> ModelSpec:
    data = documents.read_mapping(path)
    if "model_type" in data or "text_config" in data or "architectures" in data:
        name = path.resolve().parent.name if path.name == "config.json" else path.stem
        return huggingface.read_config(data, str(path), name)
    if data.get("schema") == "model/1" and isinstance(data.get("architecture"), dict):
        data = data["architecture"]
    if data.get("schema") == "graph/1":
        raise InputError(
            f"{path}: a graph/1 document is what `meshwright capture` found in a module; here a "
            f"config.json or an {ModelSpec.SCHEMA} document is needed"
        )
    return documents.parse(ModelSpec, data, str(path))


def _cluster_file(path: Path) -> ClusterSpec:
    data = documents.read_mapping(path)
    if isinstance(accelerator := data.get("accelerator"), str):
        data = {**data, "accelerator": find_accelerator(accelerator)}
    return documents.parse(ClusterSpec, data, str(path))


def _count(text: str, nodes: str, given: bool) -> int:
    if not given:
        return 1
    if not (nodes.isascii() and nodes.isdecimal() and int(nodes)):
        raise InputError(
            f"cluster {text!r}: {nodes!r} is not a number of nodes; write NAME:NODES with a "
            f"whole number from 1 on, such as {text.partition(':')[0]}:8"
        )
    if len(nodes.lstrip("0")) > len(str(MOST_NODES)) or int(nodes) > MOST_NODES:
        raise InputError(f"cluster {text!r}: choose at most {MOST_NODES:,} nodes")
    return int(nodes)


def _unknown(noun: str, text: str, names: tuple[str, ...], other: str) -> InputError:
    close = difflib.get_close_matches(text.lower(), names, n=1)
    choice = (
        f"did you mean {close[0]!r}? write one of the {len(names)} that `meshwright show` lists,"
        if close
        else f"write one of {', '.join(names)},"
    )
    return InputError(f"no {noun} is called {text!r}; {choice} or {other}")
