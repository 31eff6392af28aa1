"""Rewrite the goldens: `make goldens`, then review the diff."""

from tests.export import launch_files
from tests.golden import schedules
from tests.golden.questions import GOLDEN, answers, text

GOLDEN.write_text(text(answers()))
schedules.GOLDEN.write_text(schedules.text())
launch_files.rewrite()
