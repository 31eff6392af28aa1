"""The import table of DESIGN: who may import whom, and nothing heavy at start-up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "pandas", "matplotlib"}
MAY_IMPORT: dict[str, set[str]] = {
    "planner.spec": {"planner.spec", "pydantic", "ruamel", "rich"},
    "planner.graph": {"planner.spec", "planner.graph", "networkx"},
    "planner.graph.parts": {
        "planner.spec",
        "planner.graph.operator",
        "planner.graph.view",
        "planner.graph.parts",
        "networkx",
    },
    "planner.graph.structure": {
        "planner.spec",
        "planner.graph.operator",
        "planner.graph.structure",
        "networkx",
    },
    "planner.schedule": {"planner.spec", "planner.schedule", "numpy"},
    "planner.cost": {
        "planner.spec",
        "planner.graph",
        "planner.schedule",
        "planner.cost",
        "numpy",
        "networkx",
    },
    "planner.simulator": {
        "planner.spec",
        "planner.graph",
        "planner.schedule",
        "planner.cost",
        "planner.simulator",
        "numpy",
    },
    "planner.calibration": {
        "planner.spec",
        "planner.graph",
        "planner.cost",
        "planner.calibration",
        "numpy",
        "scipy",
    },
    "planner.ledger": {
        "planner.spec",
        "planner.graph",
        "planner.schedule",
        "planner.cost",
        "planner.ledger",
        "networkx",
        "numpy",
    },
    "planner.search": {
        "planner.spec",
        "planner.graph",
        "planner.schedule",
        "planner.cost",
        "planner.simulator",
        "planner.calibration.chosen",
        "planner.search",
        "numpy",
    },
    "planner.search.inner": {
        "planner.spec",
        "planner.schedule",
        "planner.cost",
        "planner.simulator",
        "planner.search.inner",
        "numpy",
    },
    "planner.search.outer": {
        "planner.spec",
        "planner.graph",
        "planner.schedule",
        "planner.cost",
        "planner.search.inner",
        "planner.search.outer",
        "planner.search.legality",
        "planner.search.wishes",
        "numpy",
    },
    "planner.search.inner.integer_programme": {"planner.search.inner", "numpy", "pulp"},
    "planner.export": {"planner.spec", "planner.export", "ruamel"},
    "planner.listing": {"planner.spec", "planner.graph", "planner.schedule_card"},
    "planner.schedule_card": {"planner.spec", "planner.schedule"},
    "planner.model_card": {"planner.spec", "planner.graph"},
    "planner.health": set(),
    "planner.commands": {"planner", "typer"},
    "profiler": {
        "profiler",
        "planner.spec",
        "planner.graph",
        "torch",
        "numpy",
        "pandas",
        "typer",
        "rich",
    },
    "profiler.imports": {"profiler.imports", "profiler.fits", "planner.spec", "pydantic"},
    "executor": {
        "executor",
        "planner.spec",
        "planner.schedule",
        "profiler.stopwatch",
        "profiler.machine",
        "torch",
        "typer",
        "rich",
    },
    "executor.transformer": {
        "executor.transformer",
        "executor.sequence_cut",
        "planner.spec",
        "torch",
    },
    "executor.parallel": {
        "executor.parallel",
        "executor.transformer",
        "executor.sequence_cut",
        "planner.spec",
        "planner.schedule",
        "torch",
    },
    "executor.states": {
        "executor.states",
        "executor.parallel",
        "executor.transformer",
        "planner.spec",
        "torch",
    },
    "reports": {"reports", "planner", "pandas", "matplotlib", "jinja2", "typer", "rich", "numpy"},
    "laboratory": {"laboratory", "planner", "profiler", "executor"},
    "meshwright_demo": {"planner", "profiler", "executor", "reports", "typer", "rich"},
    "meshwright_ledger": {"planner", "executor", "typer"},
    "meshwright_train": {"planner", "profiler", "executor", "typer", "rich"},
    "meshwright": {
        "planner",
        "profiler",
        "executor",
        "reports",
        "meshwright_demo",
        "meshwright_ledger",
        "meshwright_train",
        "typer",
        "pandas",
    },
}
FLOORS = [
    {"planner.spec"},
    {"planner.graph", "planner.schedule"},
    {"planner.cost"},
    {"planner.simulator", "planner.calibration", "planner.ledger"},
    {"planner.search", "planner.export"},
]


def sources() -> list[Path]:
    rooms = [
        path
        for room in ("planner", "profiler", "executor", "reports", "laboratory")
        for path in (ROOT / room).rglob("*.py")
    ]
    return sorted([*rooms, *ROOT.glob("meshwright*.py")])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    return max((room for room in MAY_IMPORT if within(module, room)), key=len, default=None)


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] not in sys.stdlib_module_names]


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_imports_follow_the_table(path: Path) -> None:
    room = room_of(module_of(path))
    if room is None:
        assert not imports(path), f"{module_of(path)} belongs to no room of the table"
        return
    allowed = MAY_IMPORT[room]
    wrong = [name for name in imports(path) if not any(within(name, room) for room in allowed)]
    assert not wrong, f"{module_of(path)} may not import {wrong}"


def test_floors_import_downwards_only() -> None:
    for floor, rooms in enumerate(FLOORS):
        above = set().union(*FLOORS[floor + 1 :])
        for room in rooms:
            assert not MAY_IMPORT[room] & above


def test_every_room_says_what_it_is() -> None:
    silent = [
        module_of(p) for p in sources() if p.name == "__init__.py" and not p.read_text().strip()
    ]
    assert silent == []


def test_every_module_has_a_room() -> None:
    homeless = [
        module_of(p) for p in sources() if p.name != "__init__.py" and not room_of(module_of(p))
    ]
    assert homeless == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, meshwright\n"
        "sys.argv = ['meshwright', '--help']\n"
        "try:\n    meshwright.main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({HEAVY | {'pydantic', 'numpy', 'networkx'}} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_planning_never_loads_torch() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\nimport meshwright as mw\n"
        "plans = mw.plan('llama2-7b', 'h100-sxm', seq_len=4096, global_batch=64)\n"
        "print(plans.best.layout.devices)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "8", done.stderr
