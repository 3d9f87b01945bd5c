"""The directions of imports inside the package, as the architecture page draws them."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import do_images_async
from do_images_async import _names, models

PACKAGE = Path(__file__).parents[2] / "do_images_async"
BASE = {
    "_arguments",
    "_credentials",
    "_decoders",
    "_loop",
    "_notebook",
    "_version",
    "_whole",
    "errors",
    "models",
}
CORE = BASE | {"_quota", "_http", "events"}

ALLOWED: dict[str, set[str]] = {
    "_version": set(),
    "_arguments": set(),
    "_credentials": {"_arguments"},
    "_decoders": set(),
    "_loop": {"errors"},
    "_notebook": set(),
    "models": {"_notebook"},
    "errors": {"models"},
    "events": {"errors", "models"},
    "retention": BASE,
    "_whole": {"errors", "models"},
    "_quota": BASE,
    "redis": BASE | {"_quota"},
    "_http": BASE | {"events", "_quota"},
    "_api": CORE,
    "audit": CORE | {"_api"},
    "testing": set(),
    "cli": CORE | {"_api", "audit", "redis", "retention", "testing", "__init__"},
    "__main__": {"cli"},
    "__init__": {"_names", "_quota", "_version"},
    "_names": CORE | {"_api", "audit", "retention"},
}
"""The parts that each part may import."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "plugin" not in path.parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_a_module_imports_only_what_its_part_may() -> None:
    offences = {
        path.relative_to(PACKAGE).as_posix(): sorted(forbidden)
        for path in MODULES
        if (forbidden := imported_parts(path) - {part_of(path)} - ALLOWED[part_of(path)])
    }
    assert offences == {}


def test_the_table_has_every_part() -> None:
    assert {part_of(path) for path in MODULES} == ALLOWED.keys() & {part_of(path) for path in MODULES}


def test_every_model_is_a_public_name() -> None:
    defined = {
        name
        for name, each in inspect.getmembers(models, inspect.isclass)
        if each.__module__ == models.__name__ and not name.startswith("_") and each is not models.OpenEnum
    }
    assert defined == {*models.__all__}
    assert defined <= {*_names.__all__}


def test_each_public_name_is_imported_by_name_and_by_the_wildcard_of_type_checkers() -> None:
    assert {*_names.__all__, "FileRateLimiter"} == {*do_images_async.__all__}
    for name in _names.__all__:
        assert getattr(do_images_async, name) is getattr(_names, name)


def test_no_call_imports_anything() -> None:
    """An import opens files: where a process has no descriptor left it would replace a call's own error."""
    assert sorted(
        f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ("cli", "testing")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ) == [
        "__init__.py: from do_images_async import _names",
        "__init__.py: from do_images_async._quota.file_limiter import FileRateLimiter",
        "models.py: from hypothesis import strategies",
    ]


def test_every_text_file_is_read_and_written_as_utf_8() -> None:
    """Otherwise the locale decides, and one without UTF-8 fails."""
    root = PACKAGE.parent
    found = [
        f"{path.relative_to(root)}:{node.lineno}: {ast.unparse(node)}"
        for folder in (PACKAGE, root / "tests", root / "benchmarks")
        for path in folder.rglob("*.py")
        if re.search(r"_text\(|\bopen\(", text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and opens_text(node)
        if "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert not found


def opens_text(call: ast.Call) -> bool:
    """Return whether it is a call of `read_text`, `write_text` or `open`, as far as its source shows."""
    match call:
        case ast.Call(func=ast.Attribute(attr="read_text" | "write_text")):
            return True
        case ast.Call(func=ast.Name("open"), args=[_]):
            return True
        case ast.Call(func=ast.Name("open"), args=[_, ast.Constant(str(mode))]):
            return "b" not in mode
        case ast.Call(func=ast.Attribute(attr="open"), args=[ast.Constant(str(mode))]):
            return "b" not in mode
        case _:
            return False


def imported_parts(path: Path) -> set[str]:
    """Return the parts of the package that a file imports, anywhere in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert not node.level, "imports are absolute"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = submodules if node.module == "do_images_async" else [node.module]
        else:
            continue
        for name in names:
            root, _, rest = name.partition(".")
            if root == "do_images_async":
                part = rest.split(".")[0]
                exists = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists()
                found.add(part if part and exists else "__init__")
    return found
