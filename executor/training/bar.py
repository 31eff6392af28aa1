"""Bar: progress of a training on stderr, read from its history while the ranks work."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from executor.training import history

REFRESH_SECONDS = 0.25


@contextlib.contextmanager
def shown(folder: Path, steps: int, title: str) -> Iterator[None]:
    """Show the bar while the block runs. Where stderr is no terminal only its end is printed."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    done = threading.Event()
    with bar:
        task = bar.add_task(title, total=steps, state="starting")

        def follow() -> None:
            while not done.wait(REFRESH_SECONDS):
                _update(bar, task, folder)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            _update(bar, task, folder)


def _update(bar: Progress, task: TaskID, folder: Path) -> None:
    records = history.read(folder / history.NAME)
    if records:
        last = records[-1]
        state = f"loss {last.loss:.4f}, {last.seconds * 1e3:.0f} ms"
        bar.update(task, completed=last.step + 1, state=state)
