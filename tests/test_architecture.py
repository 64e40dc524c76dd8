"""The house as tests: which room may import which, which library lives where, and how large a file or a folder gets.

Our own walk over the imports, because the rules are a table of what each sub-room may import; layers and forbidden
pairs, which import linters know, say less, and know nothing of private modules, libraries inside functions and names.
"""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import gemini_batch_mcp

PACKAGE = Path(gemini_batch_mcp.__file__).parent
TESTS = Path(__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}

#: Modules that every room may use. `domain` and `errors` use nothing of ours.
HALL = {
    "digests",
    "domain",
    "errors",
    "handles",
    "json_members",
    "paths",
    "patterns",
    "processes",
    "redaction",
    "settings",
    "text",
    "threads",
    "tracing",
}

#: Each sub-room, or module that stands in a room by itself, and what it may import beside the hall and its own folder.
#: A room's name with `.*` stands for all of that room. What is not here has no place in the house.
MAY_IMPORT = {
    # the command line, which puts the parts together
    "__main__": "cli",
    "cli": (
        "assistant.drop assistant.render assistant.server assistant.transports batches.* intake.* results.query "
        "sandbox.app sandbox.config"
    ),
    # what assistants see
    "assistant.server": "assistant.* batches.opening",
    "assistant.wire": "assistant.resources assistant.tasks",
    "assistant.tasks": "assistant.gate assistant.render batches.desk batches.undertakings",
    "assistant.prompts": "assistant.render batches.opening",
    "assistant.resources": "assistant.render batches.opening batches.jobs batches.orders intake.templates",
    "assistant.strict": (
        "assistant.as_sent assistant.definitions assistant.drop assistant.gate assistant.replies assistant.telling "
        "batches.gauge"
    ),
    "assistant.definitions": "assistant.tools",
    "assistant.tools": (
        "assistant.arguments assistant.comparison assistant.drop assistant.gate assistant.render "
        "assistant.resources.dashboard assistant.views batches.work"
    ),
    "assistant.drop": "assistant.transports batches.opening",
    "assistant.gate": (
        "assistant.arguments batches.desk batches.gauge batches.losses batches.opening batches.orders batches.work"
    ),
    "assistant.telling": "batches.gauge",
    "assistant.transports": "batches.opening",
    "assistant.as_sent": "",
    "assistant.replies": "",
    "assistant.arguments": "",
    "assistant.render": "assistant.comparison assistant.views batches.* results.query",
    "assistant.views": "assistant.replies",
    "assistant.comparison": "assistant.replies assistant.views",
    # the life of a batch
    "batches.desk": "batches.* intake.* results.query warehouse",
    "batches.opening": "batches.desk batches.gauge batches.jobs batches.work",
    "batches.advancing": (
        "batches.app batches.answers batches.calls batches.gauge batches.jobs batches.ledger batches.submitting"
    ),
    "batches.spending": "batches.app batches.jobs batches.ledger batches.orders intake.prices",
    "batches.ending": (
        "batches.app batches.calls batches.jobs batches.ledger batches.losses batches.remote batches.waiting"
    ),
    "batches.undertakings": "batches.app batches.jobs batches.ledger batches.submitting batches.waiting",
    "batches.objects": (
        "batches.app batches.gauge batches.in_place batches.ledger batches.orders intake.prices intake.requests"
    ),
    "batches.in_place": "batches.app batches.orders intake.prices",
    "batches.losses": "batches.app batches.jobs batches.ledger batches.orders",
    "batches.waiting": "batches.app batches.calls batches.gauge batches.jobs batches.ledger batches.submitting",
    "batches.submitting": (
        "batches.app batches.answers batches.calls batches.gauge batches.in_place batches.jobs batches.ledger "
        "batches.objects batches.orders batches.remote batches.work intake.* results.*"
    ),
    "batches.answers": (
        "batches.app batches.calls batches.gauge batches.jobs batches.ledger batches.orders batches.remote "
        "batches.work intake.prices results.* stores"
    ),
    # rows and answers that stay in BigQuery
    "batches.remote": (
        "batches.app batches.gauge batches.in_place batches.jobs batches.ledger batches.orders gemini.warehouse "
        "intake.prices intake.requests results.engine results.export results.query results.store results.table "
        "results.visible warehouse"
    ),
    "batches.trials": (
        "batches.app batches.answers batches.jobs batches.ledger batches.orders batches.work intake.prices results.*"
    ),
    # rows that are answered now
    "batches.calls": (
        "batches.app batches.gauge batches.jobs batches.ledger batches.orders intake.opened intake.requests "
        "results.table"
    ),
    # an earlier batch may be what an order is made of
    "batches.orders": (
        "batches.app batches.gauge batches.jobs batches.ledger batches.work intake.* results.answer_index "
        "results.engine results.reuse results.store stores warehouse"
    ),
    "batches.jobs": "batches.app batches.ledger gemini.wire intake.prices intake.requests results.store",
    "batches.app": (
        "batches.gauge batches.hashes batches.ledger batches.work gemini.developer gemini.gateway intake.request_files "
        "intake.validator results.answer_index results.query results.reuse results.store stores"
    ),
    "batches.work": "batches.gauge",
    "batches.gauge": "",
    "batches.hashes": "intake.opened intake.requests",
    "batches.ledger": "intake.prices",
    # rows that stay in BigQuery: the same requests and the same table, as SQL
    "warehouse": (
        "intake.generation_config intake.line_form intake.tables.sql intake.template intake.validator "
        "results.outcomes results.structured results.table"
    ),
    # answers as a table
    "results.store": "results.*",
    "results.chosen": "results.engine results.table",
    "results.report": "results.engine results.profile results.table results.visible",
    "results.profile": "results.engine results.table results.visible",
    "results.export": "results.engine results.table",
    "results.query": "results.engine results.sql_names results.visible",
    "results.answer_index": "results.engine",
    "results.reuse": "results.answer_index results.engine results.table",
    "results.table": ("results.answer_index results.engine results.outcomes results.structured results.visible"),
    "results.structured": "",
    "results.engine": "",
    "results.cursor": "",
    "results.outcomes": "",
    "results.sql_names": "",
    "results.visible": "",
    # whatever the user has, as checked request lines
    "intake.compose": (
        "intake.files intake.generation_config intake.line_form intake.request_files intake.requests intake.rows "
        "intake.tables intake.template intake.unpacked intake.validator"
    ),
    "intake.line_form": "intake.files intake.tables intake.template intake.validator",
    "intake.openai": (
        "intake.opened intake.prices intake.request_files intake.requests intake.response_schema intake.rows "
        "intake.validator"
    ),
    "intake.prices": "intake.file_kinds intake.files intake.validator",
    # a row whose file cannot be attached says so in its line, in the form that the pass over lines knows
    "intake.files": (
        "intake.file_kinds intake.opened intake.request_files intake.requests intake.rows intake.tables "
        "intake.template intake.validator"
    ),
    "intake.tables": (
        "intake.encodings intake.file_kinds intake.opened intake.requests intake.rows intake.template intake.unpacked "
        "intake.validator intake.workbooks"
    ),
    # a process of its own, and what goes in and out of it
    "intake.apart": "intake.prices intake.request_files intake.requests intake.validator",
    "intake.rows": "intake.template intake.validator",
    "intake.requests": (
        "intake.asked_schema intake.opened intake.request_files intake.rows intake.unpacked intake.validator"
    ),
    "intake.asked_schema": "",
    "intake.request_files": "",
    "intake.generation_config": "intake.response_schema intake.validator",
    "intake.response_schema": "intake.validator",
    "intake.template": "intake.validator",
    "intake.templates": "",
    "intake.validator": "",
    "intake.file_kinds": "",
    "intake.opened": "",
    "intake.encodings": "",
    "intake.unpacked": "intake.opened",
    "intake.workbooks": "intake.opened",
    # the only room that talks to Google
    "gemini.gateway": (
        "gemini.developer gemini.downloads gemini.http gemini.retry gemini.service gemini.transfers gemini.vertex "
        "gemini.warehouse gemini.wire"
    ),
    "gemini.developer": (
        "gemini.downloads gemini.failures gemini.http gemini.retry gemini.service gemini.session gemini.transfers "
        "gemini.warehouse gemini.wire"
    ),
    "gemini.vertex": (
        "gemini.downloads gemini.failures gemini.http gemini.retry gemini.service gemini.session gemini.transfers "
        "gemini.warehouse gemini.wire"
    ),
    "gemini.warehouse": "gemini.service",
    "gemini.downloads": "gemini.http gemini.retry gemini.session gemini.transfers",
    "gemini.session": "gemini.failures gemini.http gemini.retry",
    "gemini.transfers": "gemini.http",
    "gemini.http": "gemini.bodies gemini.resume gemini.retry",
    "gemini.resume": "gemini.retry",
    "gemini.failures": "gemini.bodies gemini.retry",
    "gemini.bodies": "",
    "gemini.retry": "",
    "gemini.service": "",
    "gemini.wire": "",
    # objects of object stores, as files; to Cloud Storage the way of the room that talks to Google
    "stores": "gemini.vertex",
    # the embedded service
    "sandbox.app": "sandbox.*",
    "sandbox.service": "sandbox.transport",
    "sandbox.cloud": ("sandbox.api sandbox.config sandbox.lifecycle sandbox.replies sandbox.state sandbox.wire"),
    "sandbox.api": (
        "sandbox.config sandbox.lifecycle sandbox.models sandbox.replies sandbox.state sandbox.transport sandbox.wire "
        "intake.prices"
    ),
    "sandbox.lifecycle": ("sandbox.config sandbox.models sandbox.replies sandbox.state sandbox.wire intake.validator"),
    "sandbox.replies": "sandbox.config intake.prices intake.validator",
    "sandbox.wire": "sandbox.config sandbox.state",
    "sandbox.config": "sandbox.models",
    "sandbox.state": "",
    "sandbox.models": "",
    "sandbox.transport": "",
}

#: Libraries that belong to one place.
LIVES_IN = {
    "google": "gemini.developer gemini.failures gemini.transfers gemini.vertex",
    "google_crc32c": "gemini.vertex._storage sandbox.cloud._objects",
    "boto3": "stores._s3",
    "botocore": "stores._s3",
    "opentelemetry": "tracing",
    "mcp": "assistant cli.demo cli.hosts.trying",
    "mcp_types": "assistant cli.demo",
    "sqlalchemy": "batches.ledger",
    "duckdb": "results intake.tables sandbox.cloud._tables",
    "sqlglot": "warehouse sandbox.cloud._translation",
    "xlsxwriter": "results.export._xlsx",
    "fsspec": "results.query._outlet results.table._slice_files",
    "tomlkit": "cli.hosts._toml",
    "xxhash": "digests",
    "re2": "patterns",
    "vl_convert": "results.report._renderer",
    "rich": "cli",
    "click": "cli",
    "backports": "intake.unpacked",
    "python_calamine": "intake.workbooks",
    "charset_normalizer": "intake.encodings",
    "compression": "intake.unpacked",
    "starlette": "sandbox assistant.drop",
    "python_multipart": "assistant.drop",
    "uvicorn": "sandbox assistant.transports",
}


def _is_in(module: str, places: str) -> bool:
    """Whether a module is one of the places, or stands in one of them. `room.*` stands for `room`."""
    return any(module == place or module.startswith(f"{place}.") for place in places.replace(".*", "").split())


def _place(module: str) -> str:
    """The entry of the table that a module belongs to."""
    (place,) = [name for name in MAY_IMPORT if _is_in(module, name)]
    return place


@cache
def _imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, inside functions and under TYPE_CHECKING too; ours by their whole name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= _names(node)
    return frozenset(found)


def _names(node: ast.ImportFrom) -> set[str]:
    module = node.module or ""
    within = module.removeprefix("gemini_batch_mcp").removeprefix(".")
    modules = {f"{module}.{alias.name}" for alias in node.names if f"{within}.{alias.name}".lstrip(".") in MODULES}
    return modules or {module}


@cache
def _ours(path: Path) -> frozenset[str]:
    prefix = "gemini_batch_mcp."
    return frozenset(name.removeprefix(prefix) for name in _imports(path) if name.startswith(prefix))


def test_a_room_imports_what_the_table_allows() -> None:
    refused = [
        f"{module} imports {imported}"
        for module in MODULES.keys() - HALL
        for imported in _ours(MODULES[module]) - HALL
        if not _is_in(imported, _place(module)) and not _is_in(imported, MAY_IMPORT[_place(module)])
    ]
    assert refused == []


def test_the_hall_imports_no_room() -> None:
    for module in HALL:
        assert _ours(MODULES[module]) <= HALL, module
    for module in ("domain", "errors"):
        assert _ours(MODULES[module]) == set()


def test_the_table_names_places_that_are_there_and_sub_rooms_have_an_order() -> None:
    """No two sub-rooms need each other, however long the way round."""
    folders = {module.rpartition(".")[0] for module in MODULES}
    uses: dict[str, set[str]] = {}
    for place, allowed in MAY_IMPORT.items():
        assert place in MODULES.keys() | folders, place
        for name in allowed.replace(".*", "").split():
            assert name in MODULES.keys() | folders, f"{place} may import {name}"
        uses[place] = {
            _place(imported)
            for module, path in MODULES.items()
            if module not in HALL and _place(module) == place
            for imported in _ours(path) - HALL
        } - {place}
    while free := {place for place, used in uses.items() if not used & uses.keys()}:
        for place in free:
            del uses[place]
    assert not uses, f"These need each other: {', '.join(sorted(uses))}"


def test_a_module_with_an_underscore_is_its_folders_own_and_the_others_are_used_outside() -> None:
    users: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, path in MODULES.items():
        for imported in _ours(path) & users.keys():
            users[imported].add(module.rpartition(".")[0])
    for module, folders in users.items():
        folder, _, name = module.rpartition(".")
        if name.startswith("_") and name != "__main__":
            assert folders <= {folder}, f"{module} is used by {folders - {folder}}"
        elif "." in folder:
            assert folders - {folder}, f"{module} is used in its own folder only: it begins with an underscore"


def test_libraries_are_used_in_their_place_only() -> None:
    for module, path in MODULES.items():
        for imported in _imports(path):
            places = LIVES_IN.get(imported.split(".")[0])
            assert places is None or _is_in(module, places), f"{module} imports {imported}"


def test_every_package_that_is_imported_is_declared() -> None:
    """One that merely comes along with another would be gone one day, without notice."""
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *chain(*(project["optional-dependencies"][extra] for extra in ("report", "vertex", "cloud"))),
    ]
    declared = {re.split(r"[<>=\[ ]", requirement)[0].lower() for requirement in wanted}
    # The types of the MCP SDK's own interface, released as a distribution of their own.
    declared |= {"mcp-types"}
    distributions = importlib.metadata.packages_distributions()
    imported = {name.split(".")[0] for path in MODULES.values() for name in _imports(path)}
    # Of the standard library from 3.14 on; older ones have a distribution of its own for it.
    imported -= {"compression"}
    for name in imported - sys.stdlib_module_names - {"gemini_batch_mcp"}:
        assert name in distributions, f"{name} is not installed here: uv pip install -r constraints.txt"
        assert declared & {distribution.lower() for distribution in distributions[name]}, name


def test_the_environment_is_read_by_the_command_line_only() -> None:
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert module == "cli.main" or not re.search(r"environ\b|getenv|expandvars", text), module


def test_threads_are_entered_by_one_function_only() -> None:
    for module, path in MODULES.items():
        assert module == "threads" or "to_thread" not in path.read_text(encoding="utf-8"), module


def test_nothing_is_raised_while_a_group_is_handled() -> None:
    """Before 3.11.4 (Debian 12 has 3.11.2) Python wraps that in a group: exit codes are lost, and tracebacks shown."""
    for module, path in MODULES.items():
        for handled in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.TryStar)):
            inside = [part for handler in handled.handlers for part in ast.walk(handler)]
            raising = [part for part in inside if isinstance(part, ast.Raise) or ast.unparse(part) == "sys.exit"]
            assert not raising, module


def test_no_two_files_share_the_last_two_parts_of_their_paths() -> None:
    tails = Counter(path.parts[-2:] for path in PACKAGE.rglob("*.py"))
    assert [tail for tail, count in tails.items() if count > 1] == []


def test_an_init_says_what_lives_beside_it_and_imports_nothing() -> None:
    folders = {path.parent for path in MODULES.values()}
    for folder in folders:
        body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
        assert isinstance(body[0], ast.Expr), folder
        assert len(body) == 1 or folder == PACKAGE, folder
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in body), folder


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    for path in [*MODULES.values(), *_tests()]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path


def test_no_folder_holds_more_than_fourteen_modules() -> None:
    folders = Counter(path.parent for path in [*MODULES.values(), *_tests()])
    assert {str(folder): count for folder, count in folders.items() if count > 14} == {}


def test_every_file_says_first_what_belongs_in_it() -> None:
    for path in [*MODULES.values(), *_tests()]:
        # Not by parsing it, which takes all files together two seconds.
        assert re.match(r'r?"""\s*\S', path.read_text(encoding="utf-8")), path


def _tests() -> list[Path]:
    return [path for path in sorted(TESTS.rglob("*.py")) if "node_modules" not in path.parts]


def test_contributing_has_a_line_for_every_room_and_for_no_other() -> None:
    page = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = page.partition("<!-- rooms -->")[2].partition("<!-- rooms: end -->")[0]
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in MODULES.values()} - {"."}
    assert set(re.findall(r"^\| `([a-z/]+)` \| \S", lines, re.MULTILINE)) == rooms


def test_contributing_names_files_that_are_there() -> None:
    page = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page):
        assert (PACKAGE / name).is_file() or (PACKAGE.parents[1] / name).is_file(), name
