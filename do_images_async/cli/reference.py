"""The commands as a page of Markdown and as a man page, both made from the help texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from inspect import cleandoc

import attrs
import click

from do_images_async._version import __version__
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.output import write
from do_images_async.cli.status import Exit

__all__ = ["man_command", "man_page", "reference_page"]

_ENVIRONMENT = (
    ("DIGITALOCEAN_TOKEN", "The token of the account."),
    ("DIGITALOCEAN_ACCESS_TOKEN", "The same, where the first is not set."),
    ("DIGITALOCEAN_API_URL", "Another server than https://api.digitalocean.com, such as an emulator."),
    ("HTTPS_PROXY, NO_PROXY", "The proxy, and where to go without it, unless --proxy is given."),
    ("DO_IMAGES_LOG", "Set to debug, log attempts and waits to stderr, as --verbose does."),
    ("DO_IMAGES_QUOTA_FILE", "Where a user's runs share the quota, or off."),
    ("NO_COLOR", "Leave colours out."),
    (
        "COLUMNS",
        (
            "The width of reports, and of tables on a terminal, at least 20; without it that of the "
            "terminal, or 80. In a pipe a table is never cut."
        ),
    ),
)


@attrs.frozen
class _Block:
    """A paragraph of a help text, or lines that keep their breaks."""

    lines: Sequence[str]
    kept: bool

    @property
    def title(self) -> str:
        """Return the first line of lines that keep their breaks, such as "Examples"."""
        return self.lines[0].removesuffix(":")


@attrs.frozen
class _Entry:
    """A command: its name, usage, text, and options with their help."""

    name: str
    usage: str
    blocks: Sequence[_Block]
    options: Sequence[tuple[str, str]]


def _entries(group: click.Group) -> Iterator[_Entry]:
    root = click.Context(group, info_name="do-images", **group.context_settings)
    yield _entry(group, root, "do-images")
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        if command is not None and not command.hidden:
            yield _entry(command, click.Context(command, parent=root, info_name=name), name)


def _entry(command: click.Command, ctx: click.Context, name: str) -> _Entry:
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    return _Entry(
        name=name,
        usage=" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]),
        blocks=list(_blocks(cleandoc(command.help or ""))),
        options=[(_declaration(option), _explanation(option)) for option in options],
    )


def _declaration(option: click.Option) -> str:
    """Return an option's names and values, the same for all versions of click."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    if option.metavar:
        return f"{names} {option.metavar}"
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.type.name.split()[0].upper()}"


def _explanation(option: click.Option) -> str:
    text = " ".join((option.help or "").split())
    shown = option.show_default if isinstance(option.show_default, str) else _default(option.default)
    repeated = " Repeatable." if option.multiple and "repeat" not in text else ""
    return f"{text}{repeated} Default: {shown}." if shown else f"{text}{repeated}"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int | str) else ""


def _blocks(text: str) -> Iterator[_Block]:
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        kept = bool(lines) and lines[0].strip() == "\b"
        if lines:
            yield _Block(lines[1:] if kept else lines, kept)


# --- Markdown ---


def reference_page(group: click.Group) -> str:
    """Return the reference of all commands, in Markdown."""
    parts: list[str] = []
    for entry in _entries(group):
        parts.append(f"## `{entry.name if entry.name == 'do-images' else f'do-images {entry.name}'}`\n")
        parts.append(f"```text\n{entry.usage}\n```\n")
        parts += [_markdown(block) for block in entry.blocks]
        parts += [f"- `{option}`: {text}" for option, text in entry.options]
        parts.append("")
    parts.append("## Environment\n")
    parts += [f"- `{name}`: {text}" for name, text in _ENVIRONMENT]
    return "\n".join(parts) + "\n"


def _markdown(block: _Block) -> str:
    if not block.kept:
        return " ".join(block.lines) + "\n"
    return f"{block.title}:\n\n```text\n{_dedented(block)}\n```\n"


def _dedented(block: _Block) -> str:
    return "\n".join(line.removeprefix("  ") for line in block.lines[1:])


# --- a man page ---


def man_page(group: click.Group) -> str:
    """Return the man page of all commands, in roff."""
    whole, *commands = _entries(group)
    lines = [
        f'.TH DO-IMAGES 1 "" "do-images {_roff(__version__)}" "User Commands"',
        ".SH NAME",
        "do-images \\- look after the images of a DigitalOcean account",
        ".SH SYNOPSIS",
        _roff(whole.usage),
        ".SH DESCRIPTION",
        *_paragraphs(block for block in whole.blocks if not block.kept),
        ".SH OPTIONS",
        *_options(whole),
        ".SH COMMANDS",
    ]
    for entry in commands:
        lines += [f".SS {_roff(entry.usage)}", *_paragraphs(entry.blocks), *_options(entry)]
    for block in whole.blocks:
        if block.kept:
            lines += [f".SH {_roff(block.title.upper())}", *_verbatim(block)]
    lines.append(".SH ENVIRONMENT")
    for name, text in _ENVIRONMENT:
        lines += [".TP", f".B {_roff(name)}", _roff(text)]
    return "\n".join(lines) + "\n"


def _paragraphs(blocks: Iterable[_Block]) -> Iterator[str]:
    for block in blocks:
        if block.kept:
            yield from (".PP", f"{_roff(block.title)}:", *_verbatim(block))
        else:
            yield from (".PP", *map(_roff, block.lines))


def _verbatim(block: _Block) -> Iterator[str]:
    yield from (".RS 4", ".nf", *map(_roff, _dedented(block).splitlines()), ".fi", ".RE")


def _options(entry: _Entry) -> Iterator[str]:
    for option, text in entry.options:
        yield from (".TP", f".B {_roff(option)}", _roff(text))


def _roff(text: str) -> str:
    """Return the text escaped for roff: nothing in it is a request or an escape."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


@click.command("man", cls=CheckedCommand)
@click.pass_context
def man_command(ctx: click.Context) -> int:
    """Print the man page of all commands.

    Costs no request.

    \b
    Examples:
      do-images man | man -l -
      do-images man > ~/.local/share/man/man1/do-images.1
    """
    group = ctx.find_root().command
    assert isinstance(group, click.Group)  # noqa: S101
    write(man_page(group))
    return Exit.OK
