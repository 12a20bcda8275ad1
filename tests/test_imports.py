"""What may import what: the rooms of the house, and what a start must not pay for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import surgeon
from tests.support.paths import ROOT
from tests.support.sparse import sparse_llama

HOUSE = Path(surgeon.__file__).parent
ROOMS = (
    "checkpoint", "methods", "recipe", "plan", "mergekit", "assemble", "probe", "verify", "evaluate", "bench", "jobs",
    "cli", "tui",
)  # fmt: skip
"""The folders of surgeon/. Which may import which is a contract in pyproject.toml."""

HEAVY = {"torch", "transformers", "numpy", "textual", "huggingface_hub", "safetensors", "tokenizers"}
TORCH = {"methods", "assemble", "probe", "verify", "evaluate", "bench"}
THIRD_PARTY = {
    "checkpoint": {"huggingface_hub"},
    "recipe": {"pydantic", "pydantic_core", "ruamel"},
    "plan": {"jinja2"},
}
"""What the lower rooms may import at all; the others may use whatever the project depends on."""


def modules() -> Iterator[tuple[Path, str, ast.Module]]:
    for path in sorted(HOUSE.rglob("*.py")):
        relative = path.relative_to(HOUSE)
        room = relative.parts[0] if len(relative.parts) > 1 else ""
        if not room.startswith("_"):
            yield path, room, ast.parse(path.read_text(encoding="utf-8"))


def top_level(tree: ast.Module) -> set[int]:
    """Ids of import nodes that run when the module is imported (not in functions, not under TYPE_CHECKING)."""
    found: set[int] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    walk(other)
                continue
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                found.add(id(child))
            walk(child)

    walk(tree)
    return found


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Absolute names that a module imports, and whether at its top level."""
    package = ("surgeon", *path.relative_to(HOUSE).parts[:-1])
    first = top_level(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in first
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            if name == "surgeon" or (node.level and node.module is None):
                for alias in node.names:
                    yield f"{name}.{alias.name}", id(node) in first
            else:
                yield name, id(node) in first


EVERY = [(path, room, name, first) for path, room, tree in modules() for name, first in imports(path, tree)]


def complain(rows: list[tuple[Path, str]]) -> str:
    return "\n".join(f"{path.relative_to(HOUSE)} imports {name}" for path, name in rows)


def test_every_room_is_listed() -> None:
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    assert rooms <= set(ROOMS)
    assert len(EVERY) > 100


def test_imports_point_down_and_never_in_a_circle() -> None:
    """The contracts of pyproject.toml."""
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_the_lower_rooms_use_the_standard_library_and_little_else() -> None:
    wrong = []
    for path, room, name, first in EVERY:
        root = name.partition(".")[0]
        if room in THIRD_PARTY and root not in sys.stdlib_module_names and root not in {"surgeon", *THIRD_PARTY[room]}:
            wrong.append((path, name))
        if room == "checkpoint" and root == "huggingface_hub" and (first or path.name != "download.py"):
            wrong.append((path, name))
    assert not wrong, complain(wrong)


def test_torch_is_only_known_to_the_rooms_that_compute() -> None:
    wrong = [
        (path, name)
        for path, room, name, _ in EVERY
        if (name.partition(".")[0] == "torch" and room not in TORCH)
        or (name.partition(".")[0] == "transformers" and room not in {"probe", "assemble", "verify"})
    ]
    assert not wrong, complain(wrong)


def test_transformers_is_never_imported_at_the_top_of_a_module() -> None:
    wrong = [(path, name) for path, _, name, first in EVERY if first and name.partition(".")[0] == "transformers"]
    assert not wrong, complain(wrong)


def test_textual_is_only_known_to_the_interface() -> None:
    wrong = [(path, name) for path, room, name, _ in EVERY if name.partition(".")[0] == "textual" and room != "tui"]
    assert not wrong, complain(wrong)


def loaded(*args: str, cwd: Path) -> tuple[set[str], int]:
    """Heavy packages in memory after `surgeon ARGS` in a new process, and its exit code."""
    code = (
        "import json, sys\n"
        "from surgeon.cli.app import run\n"
        "try:\n"
        "    code = run(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code or 0\n"
        "print('\\n' + json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    exit_code, names = json.loads(done.stdout.splitlines()[-1])
    return set(names) & HEAVY, exit_code


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a donor, a recipe that duplicates its layers, and a tokenizer."""
    folder = tmp_path_factory.mktemp("light")
    sparse_llama(folder / "A", shards=2, tokenizer=["<unk>", "a"])
    (folder / "recipe.yaml").write_text(
        "merge_method: passthrough\n"
        "slices:\n"
        "  - sources: [{model: ./A, layer_range: [0, 3]}]\n"
        "  - sources: [{model: ./A, layer_range: [1, 4]}]\n"
    )
    return folder


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["inspect", "--help"],
        ["inspect", "A"],
        ["inspect", "A", "A", "--layer", "1"],
        ["inspect", "A", "--json", "--tensors"],
        ["plan", "recipe.yaml"],
        ["plan", "recipe.yaml", "--json"],
        ["edit", "recipe.yaml", "--op", "delete 0", "-o", "out.yaml"],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(args: list[str], donor: Path) -> None:
    heavy, code = loaded(*args, cwd=donor)
    assert code == 0
    assert heavy == set()


def test_the_test_would_notice(donor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    heavy, code = loaded("inspect", "org/never-heard-of", "--download", cwd=donor)
    assert "huggingface_hub" in heavy and code == 1
