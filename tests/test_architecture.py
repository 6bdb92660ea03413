"""The plan of the house holds: who imports whom, and the habits that a machine can check."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import describe

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "finetune", "ingest", "kb")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
LONGEST = 300

# A heavy or awkward library has one door; everything behind it stays replaceable.
DOORS = {
    "faiss": {"kb/dense.py"},
    "tantivy": {"kb/lexical.py"},
    "watchdog": {"ingest/inotify.py"},
    "vllm": set[str](),  # an HTTP peer, never imported
}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), name(file))


def imported(module: ast.Module) -> Iterator[str]:
    """Dotted names of everything a module imports, wherever in it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield node.module or ""


def importers(library: str) -> set[str]:
    return {
        name(file)
        for file in MODULES
        if any(found.split(".")[0] == library for found in imported(tree(file)))
    }


def test_there_is_something_to_check() -> None:
    assert {name(file).split("/")[0] for file in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    assert importers(library) == DOORS[library]


def test_the_ground_floor_imports_no_other_room() -> None:
    for room in ("app", "finetune", "ingest"):
        assert not {file for file in importers(room) if file.startswith("kb/")}


@pytest.mark.parametrize("room", ["app", "finetune", "ingest"])
def test_the_upper_rooms_never_import_each_other(room: str) -> None:
    others = {"app", "finetune", "ingest"} - {room}
    assert not {file for other in others for file in importers(other) if file.startswith(room)}


def test_the_contracts_of_import_linter_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", MODULES, ids=name)
def test_a_module_says_its_role_in_its_docstring(file: Path) -> None:
    assert ast.get_docstring(tree(file))


@pytest.mark.parametrize("file", MODULES, ids=name)
def test_a_module_can_be_read_in_one_go(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST


def swallowed(module: ast.Module) -> list[int]:
    """Lines of handlers that catch everything and neither raise again nor log it whole."""
    return [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.ExceptHandler)
        and catches_everything(node.type)
        and not any(isinstance(inner, ast.Raise) or logs(inner) for inner in ast.walk(node))
    ]


def logs(node: ast.AST) -> bool:
    """Whether a node is `log.exception(...)`, or `describe(error)`, which logs in its stead."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id == "describe"
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "exception"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("log", "_log")
    )


def test_describing_an_unforeseen_error_logs_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ZeroDivisionError("not foreseen")
    assert "not foreseen" not in str(describe(error))
    assert [r.exc_info[1] for r in caplog.records if r.exc_info] == [error]


@pytest.mark.parametrize("file", MODULES, ids=name)
def test_no_except_is_bare(file: Path) -> None:
    handlers = [node for node in ast.walk(tree(file)) if isinstance(node, ast.ExceptHandler)]
    assert [node.lineno for node in handlers if node.type is None] == []


def catches_everything(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    several = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(c, ast.Name) and c.id in ("Exception", "BaseException") for c in several)


@pytest.mark.parametrize("file", MODULES, ids=name)
def test_no_module_swallows_every_exception(file: Path) -> None:
    assert swallowed(tree(file)) == []


@pytest.mark.parametrize(
    ("handler", "lines"),
    [
        ("except Exception: pass", [3]),
        ("except: pass", [3]),
        ("except (OSError, BaseException) as e: print(e)", [3]),
        ("except Exception as e: log.warning(e)", [3]),
        ("except Exception: raise ValueError", []),
        ("except Exception: log.exception('it failed')", []),
        ("except Exception as e: say(describe(e))", []),
        ("except OSError: pass", []),
    ],
)
def test_the_check_for_swallowing_finds_what_it_should(handler: str, lines: list[int]) -> None:
    assert swallowed(ast.parse(f"try:\n    f()\n{handler}\n")) == lines
