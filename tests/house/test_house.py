"""The structure of the repository, held by tests: arrows, packages, sizes, the table of commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# who may import whom; the arrows run one way
MAY_IMPORT = {
    "dsl": {"dsl"},
    "nativeops": {"nativeops"},
    "compiler": {"compiler", "dsl", "nativeops"},
    "runtime": {"runtime", "compiler", "dsl", "nativeops"},
    "cli": {"cli", "runtime", "compiler", "dsl", "nativeops"},
}
CEILING = 400
# modules over the ceiling, each with the reason why it is one
LONG = {
    "nativeops/onnx_bodies/batched_nms.py": "the six forms of one function are put together from shared text",
    "dsl/ast.py": "the tree's node classes, one after the other: a reference that is read as one page",
}


def modules() -> list[Path]:
    """All Python files of the package itself."""
    return sorted(p for folder in MAY_IMPORT for p in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Names of detc's own modules that a file imports anywhere, for types and inside functions too."""
    package = ("detc", *path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            found |= {f"detc.{alias.name}" for alias in node.names} if module == "detc" else {module}
    return {name for name in found if name == "detc" or name.startswith("detc.")} - {"detc.__version__"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_arrows_run_one_way(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        for name in imported(path):
            target = name.split(".")[1] if "." in name else ""
            if target not in MAY_IMPORT[folder]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_packages_are_those_of_the_tree():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {p.parent for d in (*MAY_IMPORT, "stdlib", "specs") for p in (ROOT / d).rglob("__init__.py")}
    tree = {"detc"} | {".".join(("detc", *f.relative_to(ROOT).parts)) for f in folders}
    assert listed == tree
    homeless = {str(p.parent.relative_to(ROOT)) for p in modules() if not (p.parent / "__init__.py").exists()}
    assert homeless == set(), "folders with Python files that are no packages"


def test_modules_are_short():
    lines = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in modules()}
    long = {name: n for name, n in lines.items() if n > CEILING}
    assert set(long) <= set(LONG), f"over {CEILING} lines without a reason: {long}"
    assert {name for name in LONG if lines.get(name, 0) <= CEILING} == set(), "no longer needed"


def test_every_command_has_its_file():
    from detc.cli.main import COMMANDS

    helpers = {"__init__", "__pycache__", "main", "faults", "console", "lazy"}
    assert {p.stem for p in (ROOT / "cli").iterdir()} - helpers == set(COMMANDS)


def test_schemas_load_without_the_heavy_libraries():
    """What `detc check` needs of every primitive comes without torch, numpy and PIL."""
    heavy = ["torch", "torchvision", "numpy", "PIL", "onnx", "scipy", "matplotlib", "rich"]
    code = (
        "import sys; from detc.compiler.primitives import load_all, everything; load_all();"
        f"print(len(list(everything())), [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    count, _, loaded = done.stdout.strip().partition(" ")
    assert int(count) > 50 and loaded == "[]"


def test_no_star_imports_and_no_bare_excepts():
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                wrong.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{path}:{node.lineno}")
    assert wrong == []


def test_links_between_documents_hold():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    link = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
    prose = {
        page: re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL) for page in pages
    }
    links = [(page, target) for page in pages for target in link.findall(prose[page])]
    broken = [f"{page.relative_to(ROOT)} -> {t}" for page, t in links if not (page.parent / t).exists()]
    assert broken == []
