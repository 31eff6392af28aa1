"""Galvatron: the flat tables that its profilers write.

    allreduce_bandwidth_*   allreduce_size_N_consec_1|0: GB/s     N neighbours, or N spread evenly
    p2p_bandwidth_*         pp_size_N: GB/s                       between the stages of N
    sp_time_*               allreduce_size_N_SMB_time, all2all_size_N_SMB_time: ms of S MiB
    overlap_coefficient     overlap_coe: time of computing beside communication over alone
    computation_profiling_* layertype_K_bszB_seqS: ms of one layer and sequence, forward
                            layernum[L]_bszB_seqS: ms of a whole model of L layers
    memory_profiling_*      layertype_K[_sp]: parameter_size (MiB of fp32), activations by tp (MiB
                            per sequence)

Bandwidths are bus bandwidths of nccl-tests, so those of the slowest link of a ring:

    fabric  = the largest group of neighbours inside a node
    network = the smallest group of neighbours beyond a node over the devices of a node, whose
              cards carry the ring together; without such a group the smallest pp_size

They make a cluster (--accelerator names the device); the other tables make a profile. Where a
table has no layertype, a layer is the difference of two models over the difference of layers.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from planner.spec.cluster import ClusterSpec, Tier
from planner.spec.documents import InputError
from planner.spec.observed import LayerMemory, LayerSample
from planner.spec.profile import CollectiveSample, Machine, Profile
from planner.spec.workload import Dtype
from profiler import fits
from profiler.imports import links, wiring
from profiler.imports.fields import Fields
from profiler.imports.outcome import Outcome, Wanted, measured_by, today
from profiler.imports.source import Source

GB, MIB = 1e9, float(1 << 20)
REDUCE = re.compile(r"allreduce_size_(\d+)_consec_([01])$")
STAGES = re.compile(r"pp_size_(\d+)$")
TIMED = re.compile(r"(allreduce|all2all)_size_(\d+)_(\d+)MB_time$")
LAYER = re.compile(r"layertype_(\w+?)(?:_bsz(\d+))?(?:_seq(\d+))?(?:_(attention|mlp))?$")
MODEL = re.compile(r"layernum\[(\d+)\]_bsz(\d+)(?:_seq(\d+))?(?:_(attention|mlp))?$")
MEMORY = re.compile(r"layertype_(\w+?)(_sp)?$")
SHAPE = re.compile(r"(\d+)nodes_(\d+)gpus_per_node")
DTYPES: dict[str, Dtype] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
DTYPE = re.compile(r"_(fp32|fp16|bf16)(?=[_.])")
KNOWN = re.compile(
    r"allreduce_size_\d|all2all_size_\d|pp_size_\d|overlap_coe|layernum\[|layertype_"
)


def read(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import tables: bandwidths as a cluster, the others as a profile. Raises InputError."""
    tables = [Fields(source.path, source.mapping()) for source in sources]
    rates = [table for table in tables if _is_bandwidth(table)]
    if rates and len(rates) < len(tables):
        other = next(table for table in tables if not _is_bandwidth(table))
        raise InputError(
            f"{rates[0].path}, {other.path}: bandwidths make a cluster, the other tables a "
            f"profile; import them apart"
        )
    return _cluster(sources, rates, wanted) if rates else _profile(sources, tables, wanted)


def _is_bandwidth(table: Fields) -> bool:
    return any(REDUCE.match(key) or STAGES.match(key) for key in table.data)


def _shape(sources: Sequence[Source], wanted: Wanted) -> tuple[int | None, int | None]:
    """Nodes and devices per node, from the options or the names of the files."""
    match = next((m for source in sources if (m := SHAPE.search(source.name))), None)
    nodes, per_node = (int(match[1]), int(match[2])) if match else (None, None)
    return wanted.nodes or nodes, wanted.devices_per_node or per_node


def _cluster(sources: Sequence[Source], tables: Sequence[Fields], wanted: Wanted) -> Outcome:
    where = ", ".join(str(source.path) for source in sources)
    accelerator = wiring.find_accelerator(wanted, where, None)
    nodes, per_node = _shape(sources, wanted)
    if nodes is None or per_node is None:
        raise InputError(
            f"{where}: the name says no `2nodes_8gpus_per_node`; pass --nodes and "
            f"--devices-per-node"
        )
    tiers, born = [], {}
    for name, devices, rate, key in _rates(where, tables, nodes, per_node):
        place = "fabric" if name == "fabric" else "network"
        seconds, source = links.latency(accelerator, place, links.NETWORK_SECONDS)
        tiers.append(
            Tier(
                name=name,
                devices=devices,
                bandwidth_bytes_per_second=rate,
                latency_seconds=seconds,
            )
        )
        born[f"{name}.bandwidth_bytes_per_second"] = measured_by(f"Galvatron, {key}", sources)
        born[f"{name}.latency_seconds"] = source
    cluster = ClusterSpec(
        name=f"{sources[0].path.stem}:{nodes}",
        accelerator=accelerator,
        nodes=nodes,
        devices_per_node=per_node,
        tiers=tuple(tiers),
        provenance=born,
    )
    return Outcome(cluster)


def _rates(
    where: str, tables: Sequence[Fields], nodes: int, per_node: int
) -> Iterator[tuple[str, int, float, str]]:
    """(tier, devices, bytes per second, key) of the fabric and the network."""
    near, far = _bandwidths(tables)
    inside = max((n for n in near if n <= per_node), default=None)
    if per_node > 1:
        if inside is None:
            raise InputError(
                f"{where}: no allreduce_size_N_consec_1 with N up to {per_node}, the devices of a "
                f"node; give the allreduce_bandwidth file too"
            )
        yield "fabric", per_node, near[inside] * GB, f"allreduce_size_{inside}_consec_1"
    if nodes == 1:
        return
    outside = min((n for n in near if n > per_node), default=None)
    stages = min(far, default=None)
    if outside is not None:
        rate, key = near[outside] / per_node, f"allreduce_size_{outside}_consec_1 / {per_node}"
    elif stages is not None:
        rate, key = far[stages], f"pp_size_{stages}"
    else:
        raise InputError(
            f"{where}: no group of more than {per_node} devices and no pp_size; give the "
            f"p2p_bandwidth file too, or pass --nodes 1"
        )
    yield "network", nodes * per_node, rate * GB, key


def _bandwidths(tables: Sequence[Fields]) -> tuple[dict[int, float], dict[int, float]]:
    """GB/s of groups of neighbours, and between stages, by size."""
    near: dict[int, float] = {}
    far: dict[int, float] = {}
    for table in tables:
        for key in table.data:
            if (match := REDUCE.match(key)) and match[2] == "1":
                near[int(match[1])] = table.number(key)
            elif match := STAGES.match(key):
                far[int(match[1])] = table.number(key)
    return near, far


def _profile(sources: Sequence[Source], tables: Sequence[Fields], wanted: Wanted) -> Outcome:
    _, per_node = _shape(sources, wanted)
    collectives = tuple(s for table in tables for s in _collectives(table, per_node))
    layers = tuple(s for table in tables for s in _layers(table))
    memory = tuple(s for table in tables for s in _memory(table))
    overlap = next((t.number("overlap_coe", least=1) for t in tables if "overlap_coe" in t), None)
    if not (collectives or layers or memory or overlap):
        raise InputError(
            f"{sources[0].path}: no key of a table of Galvatron (allreduce_size_8_consec_1, "
            f"pp_size_2, overlap_coe, layertype_0_bsz1_seq2048, ...)"
        )
    profile = Profile(
        machine=Machine(
            kind="cuda", accelerator=wanted.accelerator, accelerators=wanted.devices_per_node or 0
        ),
        created=today(),
        collectives=collectives,
        fits=fits.fit_all(collectives),
        layers=layers,
        layer_memory=memory,
        overlap_slowdown=overlap,
        provenance=measured_by("Galvatron", sources),
    )
    return Outcome(profile)


def _collectives(table: Fields, per_node: int | None) -> Iterator[CollectiveSample]:
    for key in table.data:
        if (match := TIMED.match(key)) is None or int(match[3]) == 0:
            continue
        ranks = int(match[2])
        if ranks < 2:
            raise table.refuse(key, f"a group of {ranks} sends nothing")
        yield CollectiveSample(
            op="all_reduce" if match[1] == "allreduce" else "all_to_all",
            backend="nccl",
            ranks=ranks,
            nodes=-(-ranks // per_node) if per_node else None,
            message_bytes=int(match[3]) * MIB,
            seconds=table.number(key) * 1e-3,
        )


def _layers(table: Fields) -> list[LayerSample]:
    whole = [s for key in table.data if (s := _layer(table, key)) is not None]
    return whole or list(_differences(table))


def _layer(table: Fields, key: str) -> LayerSample | None:
    match = LAYER.match(key)
    if match is None or match[1].startswith("other") or isinstance(table.data[key], dict):
        return None
    batch = int(match[2] or 1)
    milliseconds = table.number(key)
    return _sample(table, key, _name(match[1], match[4]), batch, match[3], milliseconds * batch)


def _name(layer: str, part: str | None) -> str:
    return f"layertype_{layer}" + (f" {part}" if part else "")


def _differences(table: Fields) -> Iterator[LayerSample]:
    """A layer of every kind of model that was run with two depths."""
    models: dict[tuple[str, str | None, str | None], dict[int, float]] = defaultdict(dict)
    for key in table.data:
        if match := MODEL.match(key):
            models[match[2], match[3], match[4]][int(match[1])] = table.number(key)
    for (batch, seq, part), times in models.items():
        few, many = min(times), max(times)
        if many == few:
            continue
        key = f"layernum[{many}]_bsz{batch}" + (f"_seq{seq}" if seq else "")
        milliseconds = (times[many] - times[few]) / (many - few)
        if milliseconds <= 0:
            raise table.refuse(
                key, f"{many} layers take no longer than {few}; the measurement is no good"
            )
        yield _sample(table, key, _name("0", part), int(batch), seq, milliseconds)


def _sample(
    table: Fields, key: str, layer: str, batch: int, seq: str | None, milliseconds: float
) -> LayerSample:
    if batch < 1 or seq == "0":
        raise table.refuse(key, "a batch or sequence of 0")
    named = DTYPE.search(table.path.name)
    return LayerSample(
        layer=layer,
        batch=batch,
        seq_len=int(seq) if seq else None,
        dtype=DTYPES[named[1]] if named else None,
        phase="forward",
        seconds=milliseconds * 1e-3,
    )


def _memory(table: Fields) -> Iterator[LayerMemory]:
    for key, value in table.data.items():
        match = MEMORY.match(key)
        if match is None or not isinstance(value, dict):
            continue
        part = table.part(key)
        if "parameter_size" in part:
            yield from _layer_memory(part, match[1], None, bool(match[2]))
        else:
            for seq in part.data:
                if not seq.isdecimal() or not int(seq):
                    raise part.refuse(seq, "is no length of a sequence")
                yield from _layer_memory(part.part(seq), match[1], int(seq), bool(match[2]))


def _layer_memory(part: Fields, layer: str, seq: int | None, sp: bool) -> Iterator[LayerMemory]:
    by_tp = part.part("tp_activation_per_bsz_dict")
    again = by_tp.optional("checkpoint", least=0)
    for tp in by_tp.data:
        if tp == "checkpoint":
            continue
        if not tp.isdecimal() or not int(tp):
            raise by_tp.refuse(tp, "is no degree of tensor parallelism")
        yield LayerMemory(
            layer=f"layertype_{layer}",
            tp=int(tp),
            seq_len=seq,
            sequence_parallel=sp,
            parameter_bytes=part.number("parameter_size") * MIB,
            activation_bytes=by_tp.number(tp, least=0) * MIB,
            checkpoint_bytes=None if again is None else again * MIB,
        )
