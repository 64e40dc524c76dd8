"""The house as tests: who may import what, and how long a file may get."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import gemini_batch_mcp

PACKAGE = Path(gemini_batch_mcp.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

#: Rooms, each with the rooms it may import from; the hall is open to all.
MAY_IMPORT = {
    "assistant": {"assistant", "batches", "intake", "results"},
    "batches": {"batches", "intake", "results", "gemini"},
    "intake": {"intake"},
    "results": {"results"},
    "gemini": {"gemini"},
    "sandbox": {"sandbox", "intake"},
}
HALL = {"", "__init__", "digests", "domain", "errors", "paths", "settings", "text"}
#: Modules that put the parts together, and what they may import of ours.
COMPOSING = {"cli", "cli_batches", "__main__", "console", "demo", "doctor"}

#: Packages that belong to one place.
BELONGS = {
    "google": ("gemini.",),
    "mcp": ("assistant.", "demo"),
    "mcp_types": ("assistant.", "demo"),
    "sqlalchemy": ("batches.database", "batches.ledger", "batches.ledger_files", "batches.schema"),
    "duckdb": ("results.", "intake.sources"),
    "fsspec": ("results.slice_files",),
    "xxhash": ("digests",),
    "vl_convert": ("results.report_renderer",),
    "rich": ("console", "demo"),
    "click": ("cli", "cli_batches"),
    "starlette": ("sandbox.",),
    "uvicorn": ("sandbox.",),
}


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "gemini_batch_mcp":
                found |= {f"gemini_batch_mcp.{alias.name}" for alias in node.names if alias.name != "__version__"}
    return found


def _ours(path: Path) -> set[str]:
    prefix = "gemini_batch_mcp"
    return {name.removeprefix(prefix).removeprefix(".") for name in _imports(path) if name.split(".")[0] == prefix}


def test_rooms_import_only_the_rooms_below_them() -> None:
    for module, path in MODULES.items():
        room = module.split(".")[0]
        if room not in MAY_IMPORT:
            continue
        for imported in _ours(path):
            allowed = imported in HALL or imported.split(".")[0] in MAY_IMPORT[room]
            assert allowed, f"{module} imports {imported}"


def test_the_hall_imports_no_room() -> None:
    for module in HALL - {""}:
        for imported in _ours(MODULES[module]):
            assert imported in HALL, f"{module} imports {imported}"
    for module in ("domain", "errors"):
        assert _ours(MODULES[module]) == set()


def test_every_module_has_a_place() -> None:
    for module in MODULES:
        assert module.split(".")[0] in MAY_IMPORT.keys() | HALL | COMPOSING, module


def test_the_sandbox_is_imported_by_the_command_line_only() -> None:
    for module, path in MODULES.items():
        if module != "cli" and not module.startswith("sandbox"):
            assert not any(imported.startswith("sandbox") for imported in _ours(path)), module


def test_packages_are_used_in_their_place_only() -> None:
    for module, path in MODULES.items():
        for imported in _imports(path):
            places = BELONGS.get(imported.split(".")[0])
            if places is None or imported.startswith("httpx2"):
                continue
            assert any(module == place or (place.endswith(".") and module.startswith(place)) for place in places), (
                f"{module} imports {imported}"
            )


def test_every_package_that_is_imported_is_declared() -> None:
    """One that merely comes along with another would be gone one day, without notice."""
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["report"]]
    declared = {re.split(r"[<>=\[ ]", requirement)[0].lower() for requirement in wanted}
    # The types of the MCP SDK's own interface, released as a distribution of their own.
    declared |= {"mcp-types"}
    distributions = importlib.metadata.packages_distributions()
    imported = {name.split(".")[0] for path in MODULES.values() for name in _imports(path)}
    for name in imported - sys.stdlib_module_names - {"gemini_batch_mcp"}:
        assert declared & {distribution.lower() for distribution in distributions[name]}, name


def test_the_environment_is_read_by_the_command_line_only() -> None:
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert module == "cli" or (not re.search(r"environ\b|getenv|expandvars", text)), module


def test_there_is_no_import_cycle() -> None:
    graph = {module: {name for name in _top_level(path) if name in MODULES} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def _top_level(path: Path) -> set[str]:
    """What a file imports when it is loaded."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gemini_batch_mcp"):
            module = (node.module or "").removeprefix("gemini_batch_mcp").removeprefix(".")
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name for name in names if name in MODULES} or {module}
    return found - {""}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    for module, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, module
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path.name


def test_every_file_says_first_what_belongs_in_it() -> None:
    for module, path in MODULES.items():
        if path.stat().st_size:
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), module
