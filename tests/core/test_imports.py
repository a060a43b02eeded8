"""The house: imports run down one list of rooms, none back, no circle; the core needs no Keras."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import adaptlr

PACKAGE = Path(adaptlr.__file__).parent

# A room may import from rooms further down, and from itself. Rooms in one line do not know of
# each other.
ROOMS = [
    {"__init__", "__main__", "recording", "replay", "plotting"},  # the public face
    {"callbacks"},
    {"loop", "runs"},
    {"controllers", "writers"},
    {"bridge", "range_test", "groups", "batch_size"},
    {"monitor", "schedules"},
    {"_arguments", "_store"},
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
NEEDS_KERAS = ("callbacks", "bridge", "loop", "groups")


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text())


def imported(tree):
    """What a module imports of the package; not what only a type checker sees."""
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "adaptlr":
            yield from [node.module.removeprefix("adaptlr").lstrip(".") or node.names[0].name]
        if isinstance(node, ast.Import):
            yield from (a.name[8:] for a in node.names if a.name.startswith("adaptlr."))


def room(name):
    return name.split(".")[0]


def test_every_room_is_on_the_list():
    assert {room(name) for name, _ in modules()} == set(FLOOR)


@pytest.mark.parametrize(("name", "tree"), list(modules()), ids=[name for name, _ in modules()])
def test_imports_run_down_the_list(name, tree):
    for other in imported(tree):
        down = FLOOR[room(other)] > FLOOR[room(name)]
        assert down or room(other) == room(name), f"{name} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    names = {name for name, _ in modules()}
    known = {name: {o for o in imported(tree) if o in names} for name, tree in modules()}
    while leaves := [name for name, others in known.items() if not others & known.keys()]:
        for name in leaves:
            del known[name]
    assert not known


def test_the_core_is_imported_without_keras():
    core = [n for n, _ in modules() if room(n) not in NEEDS_KERAS and FLOOR[room(n)] > 1]
    script = "import sys\n" + "".join(f"import adaptlr.{name}\n" for name in core)
    script += "sys.exit(any(n in sys.modules for n in ('keras', 'tensorflow', 'jax', 'torch')))"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_tests_of_the_core_import_no_keras():
    for path in Path(__file__).parent.glob("*.py"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if line.startswith(("import keras", "from keras"))]
