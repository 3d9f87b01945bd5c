"""Write into the pages what stands elsewhere: `python -m tests.docs.fill`.

A page has a marker, and `<!-- end -->` on a line of its own. What is between them is replaced:

- `<!-- program: NAME -->` by a program of `tests/docs/programs/`,
- `<!-- reference: DOTTED.NAME -->` by the signature and docstring of a class, function or constant, or of all
  public classes and functions of a module,
- `<!-- picture: month -->` by the retention page's picture,
- `<!-- commands: do-images -->` by all commands of the command line,
- `<!-- modules: DIRECTORY -->` by the first sentence of each module in a directory of the package.

`tests/project/test_docs.py` fails when a page is not up to date.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import attrs

from tests.docs.month import draw_month

__all__ = ["MARKER", "PAGES", "PROGRAMS", "fill"]

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "do_images_async"
PAGES = sorted((HERE / "pages").rglob("*.md"))
PROGRAMS = HERE / "programs"
MARKER = re.compile(
    r"^<!-- (program|reference|modules|commands|picture): (\S+) -->\n(?:.*?\n)??<!-- end -->$",
    re.DOTALL | re.MULTILINE,
)

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ITEM = re.compile(r"^    (\S[^:]*): (.*)$")
_WIDTH = 100

_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def fill(text: str) -> str:
    """Return a page with what its markers ask for."""
    return MARKER.sub(_filled, text)


def _filled(found: re.Match[str]) -> str:
    kind, name = found[1], found[2]
    fillers = {
        "program": _program,
        "reference": _reference,
        "modules": _modules,
        "commands": _commands,
        "picture": _picture,
    }
    lines = fillers[kind](name)
    return f"<!-- {kind}: {name} -->\n" + "\n".join(lines).strip() + "\n<!-- end -->"


def _program(name: str) -> Iterator[str]:
    yield f"```python\n{(PROGRAMS / name).read_text(encoding='utf-8')}```"


def _picture(name: str) -> Iterator[str]:
    yield {"month": draw_month}[name]()


def _commands(_: str) -> Iterator[str]:
    from do_images_async.cli.app import main  # click is an extra
    from do_images_async.cli.reference import reference_page

    yield reference_page(main)


def _modules(directory: str) -> Iterator[str]:
    """Yield a line for each module in a directory of the package, or for each file at the top (`.`)."""
    files = (PACKAGE / directory).glob("*.py" if directory == "." else "**/*.py")
    for path in sorted(files):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if doc and path.name != "__init__.py":
            summary = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
            yield f"- `{path.relative_to(PACKAGE).as_posix()}`: {summary}"


def _reference(dotted: str) -> Iterator[str]:
    """Yield the lines on one public name, or on every public class and function of a module."""
    module, name = _located(dotted)
    for each in module.__all__ if name is None else (name,):
        value = getattr(module, each)
        if inspect.isclass(value):
            yield from _class(each, value)
        elif inspect.isfunction(value):
            yield from _function(f"### `{each}`", each, value)
        elif name is not None:
            yield f"### `{each}`\n"
            yield from _prose(_string_below(module, each) or f"`{value!r}`")


def _located(dotted: str) -> tuple[ModuleType, str | None]:
    try:
        return import_module(dotted), None
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return import_module(module), name


def _string_below(module: ModuleType, name: str) -> str | None:
    """Return the string below the assignment of a constant, in whichever file of a package that is."""
    for path in sorted(Path(module.__file__ or "").parent.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, below in pairwise(body):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=target)) | ast.Assign(targets=[ast.Name(id=target)]),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ) if target == name:
                    return doc
                case _:
                    pass
    return None


def _class(name: str, cls: type[Any]) -> Iterator[str]:
    yield f"### `{name}`\n"
    doc = inspect.getdoc(cls) or ""
    if issubclass(cls, enum.Enum):
        yield from _prose(doc)
        yield "Values: " + ", ".join(f"`{member.name}` = `{member.value!r}`" for member in cls) + "\n"
    else:
        yield from _signature(name, cls)
        yield from _prose(doc)
    yield from _members(name, cls)


def _members(owner: str, cls: type[Any]) -> Iterator[str]:
    fields = {field.name for field in attrs.fields(cls)} if attrs.has(cls) else set[str]()
    for name, member in vars(cls).items():
        if name.startswith("_") or name in fields:
            continue
        heading = f"#### `{owner}.{name}`"
        if isinstance(member, property) and member.__doc__:
            yield f"{heading}\n"
            yield from _prose(inspect.getdoc(member) or "")
        elif isinstance(member, classmethod | staticmethod) or inspect.isfunction(member):
            function = getattr(cls, name)
            if function.__doc__:
                yield from _function(heading, name, function)


def _function(heading: str, name: str, function: Callable[..., object]) -> Iterator[str]:
    yield f"{heading}\n"
    yield from _signature(name, function)
    yield from _prose(inspect.getdoc(function) or "")


def _signature(name: str, value: type[Any] | Callable[..., object]) -> Iterator[str]:
    """Yield a signature as its source has it; for most attrs classes, their fields."""
    result = ""
    if inspect.isclass(value) and attrs.has(value) and "def __init__" not in inspect.getsource(value):
        head, parameters = name, list(_fields(value))
    else:
        definition = _definition(vars(value).get("__init__") if inspect.isclass(value) else value)
        if definition is None:
            return
        head = f"async {name}" if isinstance(definition, ast.AsyncFunctionDef) else name
        parameters = list(_parameters(definition.args))
        if definition.returns is not None and not inspect.isclass(value):
            result = f" -> {ast.unparse(definition.returns)}"
    text = f"{head}({', '.join(parameters)}){result}"
    if len(text) > _WIDTH:
        text = f"{head}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){result}"
    yield f"```text\n{text}\n```\n"


def _fields(cls: type[Any]) -> Iterator[str]:
    starred = False
    annotations = _annotations(cls)
    for field in sorted((field for field in attrs.fields(cls) if field.init), key=lambda each: each.kw_only):
        if field.kw_only and not starred:
            starred = True
            yield "*"
        default = "" if field.default is attrs.NOTHING else f" = {_default(field.default)}"
        yield f"{field.alias}: {annotations[field.name]}{default}"


def _annotations(cls: type[Any]) -> dict[str, str]:
    """Return the annotations of a class and its bases as written; at run time some are resolved."""
    found: dict[str, str] = {}
    for each in reversed([base for base in cls.__mro__ if attrs.has(base)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        for statement in ast.walk(definition):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found[statement.target.id] = ast.unparse(statement.annotation)
    return found


def _default(value: object) -> str:
    return "..." if value.__class__.__name__ == "Factory" else repr(value)


def _definition(function: object) -> _Definition | None:
    if not callable(function):
        return None
    try:
        source = inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return None  # written in C, or generated
    (node,) = ast.parse(textwrap.dedent(source)).body
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*([None] * (len(positional) - len(arguments.defaults))), *arguments.defaults]
    yield from _each(positional, defaults)
    if arguments.vararg:
        yield f"*{_parameter(arguments.vararg, None)}"
    elif arguments.kwonlyargs:
        yield "*"
    yield from _each(arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        yield f"**{_parameter(arguments.kwarg, None)}"


def _each(parameters: Iterable[ast.arg], defaults: Iterable[ast.expr | None]) -> Iterator[str]:
    for parameter, default in zip(parameters, defaults, strict=True):
        if parameter.arg not in ("self", "cls"):
            yield _parameter(parameter, default)


def _parameter(parameter: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(parameter.annotation)}" if parameter.annotation else ""
    return f"{parameter.arg}{annotation}" + (f" = {ast.unparse(default)}" if default else "")


def _prose(doc: str) -> Iterator[str]:
    """Yield a docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    in_section = False
    for line in inspect.cleandoc(doc).splitlines():
        if section := _SECTION.match(line):
            in_section = True
            lines += [f"**{section[1]}**", ""]
        elif in_section and (item := _ITEM.match(line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif in_section and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            in_section = in_section and not line
            lines.append(line)
    yield "\n".join(lines).strip() + "\n"


def main() -> None:
    """Write every page that is not up to date, and print its name; with `--check`, only print it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            print(page.relative_to(HERE))  # noqa: T201
            if "--check" not in sys.argv:
                page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
