"""The class of every command: what is checked of all its options together, once each of them is valid."""

from __future__ import annotations

from collections import Counter

import click

from do_images_async.cli.files import check_files

__all__ = ["CheckedCommand", "typed_name"]


class CheckedCommand(click.Command):
    """A command that refuses an option with two values, and files that two options name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click takes the arguments out of its list
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # while a shell completes
            self._check_repeated(ctx, given)
            check_files(ctx)
        return rest

    def _check_repeated(self, ctx: click.Context, args: list[str]) -> None:
        """Raise UsageError for an option with two values, of which click would take the last one."""
        _, _, order = self.make_parser(ctx).parse_args(args=args)
        for param, times in Counter(order).items():
            if times > 1 and _takes_one_value(param):
                raise click.UsageError(f"{typed_name(param)} is given {times} times: it takes one value", ctx)


def typed_name(param: click.Parameter) -> str:
    """Return the name of a parameter on the command line: its longest option, or the argument's."""
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name


def _takes_one_value(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not (param.multiple or param.is_flag or param.count)
