"""Shell completion in bash, zsh and fish: click's, corrected for values after =, a minus or a comma.

`register` makes click use these classes. They differ from click's in this:

- `--option=value`: the word is completed as a whole, or only the value where the shell splits words at =.
- A value may begin with a minus, such as that of --sort.
- fish's part of click splits completions and descriptions at commas.
"""

from __future__ import annotations

from typing import ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

__all__ = ["SHELLS", "VARIABLE", "register"]

VARIABLE = "_DO_IMAGES_COMPLETE"
"""The variable by which a shell's script asks for completions."""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain described response
    local type key description
    (( ! $+commands[%(prog_name)s] )) && return 1

    response=("${(@f)$(env COMP_WORDS="${words[1,CURRENT]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}")

    for type key description in ${response}; do
        if [[ "$type" == "plain" ]]; then
            if [[ "$description" == "_" ]]; then
                plain+=("$key")
            else
                described+=("$key":"$description")
            fi
        else
            [[ "$key" == *= ]] && compset -P 1 '*='
            if [[ "$type" == "dir" ]]; then
                _path_files -/
            elif [[ "$type" == "file" ]]; then
                _path_files -f
            fi
        fi
    done

    if (( $#described )); then
        _describe -V unsorted described -U
    fi
    if (( $#plain )); then
        compadd -U -V unsorted -a plain
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -ct) %(prog_name)s)

    for completion in $response
        set -l parts (string split \\t -- $completion)
        switch $parts[1]
            case dir
                for path in (__fish_complete_directories $parts[3])
                    echo -- $parts[2]$path
                end
            case file
                for path in (__fish_complete_path $parts[3])
                    echo -- $parts[2]$path
                end
            case plain
                string join \\t -- $parts[2..-1]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Values(ShellComplete):
    """Completion of options' values, also after an equals sign or with a minus in front."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        if "--" in args:
            return []  # no option follows, though click would offer its values
        name, equals, value = incomplete.partition("=")
        joined = bool(equals) and name.startswith("--")
        found = self._option([*args, name] if joined else args)
        if found is not None:
            context, option = found
            items = option.shell_complete(context, value if joined else incomplete)
            return [_prefixed(item, f"{name}=") for item in items] if joined else items
        return [] if joined else super().get_completions(args, incomplete)

    def _option(self, args: list[str]) -> tuple[click.Context, click.Option] | None:
        """Return the option whose value comes next, with its command's context; None if none does."""
        if len(args) < 2 or not isinstance(self.cli, click.Group):
            return None
        root = click.Context(self.cli, info_name=self.prog_name)
        command = self.cli.get_command(root, args[0])
        if command is None:
            return None
        for option in command.params:
            if isinstance(option, click.Option) and args[-1] in option.opts and _takes_value(option):
                return click.Context(command, parent=root, info_name=args[0]), option
        return None


def _takes_value(option: click.Option) -> bool:
    return not (option.is_flag or option.count)


def _prefixed(item: CompletionItem[str], prefix: str) -> CompletionItem[str]:
    value = prefix + item.value if item.type == "plain" else item.value
    return CompletionItem(value, item.type, item.help, prefix=prefix)


class Bash(_Values, BashComplete):
    """Completion in bash, which splits words at = unless COMP_WORDBREAKS lacks it."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        if incomplete == "=":
            return args, ""
        if len(args) > 1 and args[-1] == "=" and args[-2].startswith("--"):
            args.pop()
        return args, incomplete


class Zsh(_Values, ZshComplete):
    """Completion in zsh."""

    source_template: ClassVar[str] = _ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        if item.type == "plain":
            return super().format_completion(item)
        return f"{item.type}\n{item.prefix or '_'}\n_"


class Fish(_Values, FishComplete):
    """Completion in fish."""

    source_template: ClassVar[str] = _FISH

    def format_completion(self, item: CompletionItem[str]) -> str:
        if item.type != "plain":
            return f"{item.type}\t{item.prefix or ''}\t{item.value}"
        description = " ".join((item.help or "").split())
        return f"plain\t{item.value}\t{description}" if description else f"plain\t{item.value}"


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
"""The shells whose completion `do-images completion` sets up."""


def register() -> None:
    """Make click use these classes."""
    for name, kind in SHELLS.items():
        add_completion_class(kind, name)
