"""The packages import in one direction only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FREE = {"choices", "pareto", "paths"}
SPACE = {"choices", "commuting", "components", "path_keys", "space"}
NO_JAX = {"algorithms", "searching", "trials", "constraints", "diagnostics", "report"}
HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax"}
TOP = {  # who may import what stands on top; `factories` builds supernets by name
    "spaces": {"spaces", "factories"},
    "run": {"run", "quickstart", "commands"},
    "commands": {"cli"},
    "cli": {"cli"},
}


def _walk(node: ast.AST):
    if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        yield node  # what only a type checker reads is imported by nobody
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


def _imports(path: Path) -> set[str]:
    found, package = set(), path.relative_to(ROOT).parent.parts
    for node in _walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *filter(None, [node.module])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


FILES = sorted((ROOT / "oneshot").rglob("*.py"))
NAMES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
MODULES = {
    name.removesuffix(".__init__"): _imports(path)
    for name, path in zip(NAMES, FILES, strict=True)
}
GROUPS = {name: (name.split(".") + [""])[1] for name in MODULES}


def _reached(module: str) -> set[str]:
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        parent = {name.rpartition(".")[0]} - {""}  # importing a.b runs a as well
        new = (MODULES.get(name, set()) | parent) - seen
        seen |= new
        todo += new
    return seen


@pytest.mark.parametrize("module", [m for m in MODULES if GROUPS[m] in FREE])
def test_the_base_imports_nothing_of_ours(module):
    assert not [x for x in MODULES[module] if x.split(".")[0] == "oneshot"]


def test_a_space_is_made_of_its_own_parts_only():
    reached = {x.split(".")[1] for x in _reached("oneshot.space") if "oneshot." in x}
    assert reached & set(GROUPS.values()) <= SPACE


@pytest.mark.parametrize("module", [m for m in MODULES if GROUPS[m] in NO_JAX])
def test_search_and_report_run_without_jax(module):
    assert not HEAVY & {x.split(".")[0] for x in _reached(module)}


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_the_top(module):
    for top, allowed in TOP.items():
        wrong = [x for x in MODULES[module] if f"{x}.".startswith(f"oneshot.{top}.")]
        assert GROUPS[module] in allowed or not wrong


def test_the_package_imports_nothing_of_ours_at_once():
    assert not {x for x in MODULES["oneshot"] if x.split(".")[0] == "oneshot"}
