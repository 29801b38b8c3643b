"""Imports go one way: a folder may import only what stands to its left, and the two wings never meet."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    "env", "measure", "formats", "ops", "layers", "models", "quantize", "checkpoint", "convert",
    "steps", "plan", "pipeline", "report", "serve", "cli", "__main__",
]  # fmt: skip
WINGS = {"quantize", "steps"}
EXEMPT = {"__init__.py", "testing"}


def room(path: Path) -> str:
    return path.relative_to(ROOT / "engine").parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    depth = len(path.relative_to(ROOT / "engine").parts)
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module and node.module.split(".")[0] == "halfbyte":
            rooms |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("halfbyte.")}
    return rooms & set(ORDER)


ENGINE = [p for p in sorted((ROOT / "engine").rglob("*.py")) if not EXEMPT & {room(p), p.relative_to(ROOT / "engine").parts[0]}]


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_engine_imports_only_to_the_left(path):
    own = room(path)
    assert own in ORDER, f"{own} has no place in the import order"
    for name in imported_rooms(path) - {own}:
        assert ORDER.index(name) < ORDER.index(own), f"{own} imports {name}"
        assert {own, name} != WINGS, "quantize and steps meet in plan, not in each other"


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_engine_imports_itself_relatively(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not [n for n in names if n and n.split(".")[0] in {"halfbyte", "engine"}]


@pytest.mark.parametrize("path", sorted((ROOT / "triton_kernels").rglob("*.py")), ids=lambda p: p.name)
def test_triton_kernels_is_a_leaf(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert {n.split(".")[0] for n in names} <= {"torch", "triton", *sys.stdlib_module_names}, f"{path.name} imports {names}"


@pytest.mark.parametrize("path", sorted((ROOT / "csrc").rglob("*.*")), ids=lambda p: p.name)
def test_csrc_never_sees_a_torch_header(path):
    assert not [line for line in path.read_text().splitlines() if line.startswith("#include") and ("torch" in line or "ATen" in line)]


def test_files_stay_short():
    lengths = sorted(len(p.read_text().splitlines()) for folder in ("engine", "triton_kernels") for p in (ROOT / folder).rglob("*.py"))
    assert lengths[len(lengths) // 2] < 120
    assert lengths[-1] <= 400


@pytest.mark.parametrize("path", sorted((ROOT / "engine").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_pickle(path):
    words = {"pickle", "torch.load(", "torch.save(", "joblib"}
    assert not [word for word in words if word in path.read_text().replace("no pickle", "")]
