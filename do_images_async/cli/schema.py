"""The command `schema`: the JSON Schemas of the other commands' output."""

from __future__ import annotations

from importlib.resources import files

import click

from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.output import write
from do_images_async.cli.status import Exit

__all__ = ["SCHEMAS", "schema_command", "schema_text"]

SCHEMAS = ("report", "finding", "image", "plan")
"""Names of the schemas."""


@click.command("schema", cls=CheckedCommand)
@click.argument("name", type=click.Choice(SCHEMAS))
def schema_command(name: str) -> int:
    """Print the JSON Schema of a format.

    `report` is what `audit -o json` writes, `finding` one of its findings, `image` a row of `list`, `get` and
    `latest` with `-o json` or `-o ndjson`, and `plan` what `prune` writes with `--plan` or `-o json`. Costs
    no request.

    \b
    Example:
      do-images schema report > report.schema.json
    """
    write(schema_text(name))
    return Exit.OK


def schema_text(name: str) -> str:
    """Return one of the `SCHEMAS` as JSON."""
    return files("do_images_async.cli").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
