"""Meshwright: how should a Transformer be split over devices, how long will a step take,
what will it cost, and is that true?

On the command line each room adds its commands. In a notebook:

    import meshwright as mw
    plans = mw.plan("llama3.1-8b", "h100-sxm:2", seq_len=8192, global_batch=256)
    plans.best, plans.to_frame(), print(plans.explain())

Rooms load only when used: `meshwright --help` imports neither torch nor pandas nor matplotlib.
"""

import errno
import io
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from planner.spec.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

    from planner.search.ranking import Ranking
    from planner.spec.measured import Measured
    from planner.spec.plan import Plan
    from planner.spec.timeline import Timeline
    from planner.spec.trained import Trained

__version__ = VERSION
__all__ = ["Plans", "estimate", "main", "plan", "run", "simulate", "train"]

EXIT_CODES = {"InputError": 2, "NoPlanError": 3, "RunError": 1}
"""Any other exception is our fault: a traceback and exit code 1."""


class Plans:
    """The plans of one question, best first."""

    def __init__(self, ranking: "Ranking", plans: "tuple[Plan, ...]"):
        self.ranking, self.plans = ranking, plans

    @property
    def best(self) -> "Plan":
        """The best plan."""
        return self.plans[0]

    def to_frame(self) -> "pd.DataFrame":
        """One row per plan; SI units, the unit in the column's name."""
        import pandas as pd

        from planner.search.answer import LAYOUT_KEYS

        rows = []
        for found in self.plans:
            assert found.predicted is not None
            layout = found.layout.model_dump()
            predicted = found.predicted.model_dump(
                include={
                    "step_seconds",
                    "low_seconds",
                    "high_seconds",
                    "tokens_per_second_per_device",
                    "mfu",
                    "peak_bytes",
                }
            )
            rows.append({key: layout[key] for key in LAYOUT_KEYS} | predicted)
        return pd.DataFrame(rows)

    def explain(self) -> str:
        """Why the best plan is best, and what its neighbours lose."""
        return "\n".join(self.best.why)

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html())


def plan(
    model: Any,
    cluster: Any,
    *,
    seq_len: int,
    global_batch: int,
    dtype: str | None = None,
    runtime: Any = None,
    profile: Any = None,
    calibration: Any = None,
    objective: str = "time",
    throughput: float | None = None,
    top_k: int = 5,
    allow_at_risk: bool = False,
    fix: tuple[str, ...] = (),
    forbid: tuple[str, ...] = (),
    memory_limit: str | None = None,
    memory_headroom: str | None = None,
    time_limit: float | None = None,
) -> Plans:
    """Choose how to split a model over a cluster (names, paths or specs).

    Raises InputError for bad input, NoPlanError when nothing fits.
    """
    from planner.search import planning, question
    from planner.search.wishes import Wishes

    blocks = question.ask(
        model, cluster, seq_len, global_batch, dtype, runtime, profile, calibration
    )
    wishes = Wishes.of(fix, forbid, memory_limit, memory_headroom, time_limit)
    chosen = planning.choose(blocks, objective, top_k, allow_at_risk, wishes, throughput)
    return Plans(*chosen)


def estimate(
    model: Any,
    cluster: Any,
    layout: str,
    *,
    seq_len: int,
    global_batch: int,
    dtype: str | None = None,
    runtime: Any = None,
    profile: Any = None,
    calibration: Any = None,
) -> "Plan":
    """Predict one layout, written as for `--layout`. Raises InputError."""
    from planner.search import question, told_layout

    blocks = question.ask(
        model, cluster, seq_len, global_batch, dtype, runtime, profile, calibration
    )
    return told_layout.plan_of_layout(blocks, layout)


def simulate(planned: "Plan") -> "Timeline":
    """Replay a plan through the event engine."""
    from planner.cost.blocks import Blocks
    from planner.simulator.timeline import timeline

    return timeline(Blocks.of_plan(planned), planned)


def run(planned: "Plan", **options: Any) -> "Measured":
    """Run a plan on this machine with torch.distributed (executor.processes.launch.run_plan)."""
    from executor.processes.launch import run_plan

    return run_plan(planned, **options)


def train(planned: "Plan", **options: Any) -> "Trained":
    """Train a plan's model for a task on this machine (executor.training.options.TrainOptions)."""
    from executor.training.launch import train_plan
    from executor.training.options import TrainOptions

    return train_plan(planned, TrainOptions(**options))


def main() -> None:
    """The command line. Exit codes: 0 ok, 1 our fault, 2 bad input, 3 no feasible plan."""
    before = signal.signal(signal.SIGTERM, _leave)
    sys.stdout = sys.stdout or io.StringIO()  # None where the caller has closed it
    try:
        code = _guarded()
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(code)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End as by an exception: folders that are for the time of a run go, and so do its ranks."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _app() -> Callable[..., Any]:
    import typer

    import executor.commands
    import meshwright_demo
    import meshwright_ledger
    import meshwright_train
    import planner.commands
    import profiler.commands
    import reports.commands

    app = typer.Typer(
        name="meshwright",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
    )

    @app.callback()
    def options(
        context: typer.Context,
        version: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        """Plan, simulate, run and judge the parallel training of Transformers."""
        context.obj = meshwright_ledger

    for room in (planner.commands, profiler.commands, executor.commands, reports.commands):
        room.register(app)
    meshwright_train.register(app)
    meshwright_demo.register(app)
    meshwright_ledger.register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(__version__ + "\n")
        sys.exit(0)


def _guarded() -> int:
    """Run the app; errors of the user become one message and an exit code.

    Errors are known by name, so that `--help` need not import the rooms that define them.
    """
    try:
        _app()()
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = error.filename or "standard output"
        return _complain(f"{where}: cannot be written: {error.strerror}", 2)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return _complain("this command needs torch; install it: pip install -e '.[exec]'", 2)
    except Exception as error:  # rooms have errors of their own; what is not known is raised again
        code = EXIT_CODES.get(type(error).__name__)
        if code is None:
            raise
        return _complain(str(error), code)
    return 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"meshwright: {message}\n")
    return code


if __name__ == "__main__":
    main()
