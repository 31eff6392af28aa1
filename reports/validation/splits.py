"""Splits: which measured runs are predicted by constants that were fitted without them.

A split names its files, what is fitted, what is judged, and the columns that say what is left out
together. targets: median error, share of pairs in order, mean regret; None where none is asked.
why: what is known of a miss.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """One cross-validation. fitted, judged: expressions as of --where, empty for all rows."""

    title: str
    files: tuple[str, ...]
    by: tuple[str, ...]
    fitted: str = ""
    judged: str = ""
    targets: tuple[float | None, float | None, float | None] = (None, None, None)
    why: str = ""


CLEAN = "n_gpus <= 64 and mfu_pct >= 10 and peak_mem_gib < 66"
FAST = "mfu_pct >= 10 and peak_mem_gib < 66"
EIGHTY, FORTY = '"80GB" in gpu', '"40GB" in gpu'

SPLITS = (
    Split(
        "Ultra-Scale, n <= 64, MFU >= 10 %, peak < 66 GiB; group",
        ("hf_ultrascale",),
        ("model", "n_gpus"),
        CLEAN,
        CLEAN,
        (0.05, 0.92, 0.025),
        "of 15.4 % over the eight questions 14.6 go to one pair of layouts of 8B, tp 2 with one "
        "sequence against tp 1 and a pipeline, the first predicted 4 to 8 % too fast and chosen by "
        "2 %. It is not noise: 41 pairs of runs that differ in ZeRO alone scatter by 2.6 % (root "
        "mean square of one run), and at that noise who knew the predicted times to be true would "
        "lose 0.8 % (bootstrap; more than 2.5 % once in a hundred), the measured ones 1.0 %",
    ),
    Split(
        "the same; model",
        ("hf_ultrascale",),
        ("model",),
        CLEAN,
        CLEAN,
        (0.06, 0.90, 0.03),
    ),
    Split(
        "Ultra-Scale, all rows; group",
        ("hf_ultrascale",),
        ("model", "n_gpus"),
        FAST,
        "",
        (0.15, 0.82, None),
        "36 % of the rows carry a delay per pipeline operation that no layout explains; 41 % take "
        "more than 1.3 times what is predicted, the others are off by 5.6 %",
    ),
    Split(
        "vTrain; hidden size",
        ("vtrain_single",),
        ("hidden",),
        targets=(0.06, 0.95, 0.02),
        why="by (model, devices) without the batch, the question of the prototype that the targets "
        "come from, it is 96.9 % and 0.3 %. The rows are composed of 32 layer times (by hidden, tp "
        "and micro batch; with the heads and updates they tell each row to 2 %), of which three "
        "make 2.4 of the 3.0 % regret: hidden 2048 with two sequences takes 2.74 ms at tp 4 and "
        "4.60 at tp 2, with one 2.98 and 3.40; hidden 1024 at tp 2 3.17 ms with four and 3.58 with "
        "two. Were these three right, it would be 96.9 % and 0.6 %. In sample the constants reach "
        "95.0 % and 2.9 %, twelve free numbers for the layer alone (a host time that grows with "
        "tp, kernels linear in tokens), all else as measured, 94.9 % and 2.4 %",
    ),
    Split(
        "vTrain and BLOOM, one calibration; hidden and tp",
        ("vtrain_single", "bigscience_bloom_prequel"),
        ("hidden", "tp"),
        why="two clusters of the same software differ by more than their runs do",
    ),
    Split(
        "BLOOM; layout",
        ("bigscience_bloom_prequel",),
        ("tp", "pp", "dp"),
        targets=(0.06, None, None),
    ),
    Split(
        "LLM-foundry, 80 GB; model",
        ("llm_foundry",),
        ("model",),
        EIGHTY,
        EIGHTY,
        (0.05, 0.96, 0.03),
    ),
    Split(
        "LLM-foundry, 40 GB; model",
        ("llm_foundry",),
        ("model",),
        FORTY,
        FORTY,
        (0.05, 0.96, 0.03),
    ),
    Split("SC'21; row", ("megatron_sc21_table1",), ("line",), targets=(0.06, None, None)),
    Split("Korthikanti; row", ("korthikanti_2022",), ("line",), targets=(0.06, None, None)),
    Split("NeMo; model", ("nemo_2407",), ("model",), targets=(0.06, None, None)),
)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A new cluster: constants of the `known` rows, moved by ten of the `new` ones.

    by: columns that say which known rows are left out together for the start's own error. why:
    what is known of a miss.
    """

    title: str
    files: tuple[str, ...]
    known: str
    new: str
    by: tuple[str, ...]
    why: str = ""


TRANSFERS = (
    Transfer(
        "BLOOM, given vTrain",
        ("vtrain_single", "bigscience_bloom_prequel"),
        'source == "vtrain-groundtruth-single"',
        'source != "vtrain-groundtruth-single"',
        ("hidden", "tp"),
        "four runs of BLOOM that are told alike took 114.0, 114.1, 120.8 and 121.5 s, and 11 of "
        "the 53 took 11 to 47 % longer than vTrain's constants say, one to four of ten drawn. "
        "One degree of trust for all draws leaves 3.1 to 4.1 % (twelve were tried), for every draw "
        "its own, with hindsight, 3.1 %; all other layouts together, fitted alone, bring one of "
        "BLOOM to 2.5 % held out",
    ),
    Transfer("LLM-foundry 40 GB, given 80 GB", ("llm_foundry",), EIGHTY, FORTY, ("model",)),
    Transfer(
        "Ultra-Scale 8B, given 3B (n <= 64)",
        ("hf_ultrascale",),
        f'"3B" in model and {CLEAN}',
        f'"8B" in model and {CLEAN}',
        ("n_gpus",),
    ),
    Transfer(
        "NeMo 24.07 v2.1, given v2.0",
        ("nemo_2407",),
        '"v2.0" in source',
        '"v2.1" in source',
        ("model",),
    ),
)
