"""The rules and limits of a report."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from numbers import Real
from typing import TypeAlias

import attrs

from do_images_async._arguments import check_unread, shown
from do_images_async.audit.context import Context, Finding, Rule
from do_images_async.models import Image

__all__ = [
    "NamedRule",
    "RuleSettings",
    "Setting",
    "checked_names",
    "checked_number",
    "limits_of",
    "matches_tag",
    "setting_text",
    "settings_of",
]

Setting: TypeAlias = float | str | Sequence[str]
"""A limit or pattern of a rule, as JSON can hold it."""


@attrs.frozen(eq=False)
class NamedRule:
    """A rule with its name and limits, which the report shows.

    Attributes:
        name: the name that its findings have.
        check: the rule itself.
        settings: its limits by their names, such as `{"days": 365.0}`.
    """

    name: str
    check: Rule = attrs.field(repr=False)
    settings: Mapping[str, Setting] = attrs.field(factory=dict[str, Setting])

    def __call__(self, image: Image, context: Context) -> Finding | None:
        """Return the rule's finding about the image, or None."""
        return self.check(image, context)


@attrs.frozen
class RuleSettings:
    """The name and the limits of a rule that a report was made with.

    Attributes:
        rule: the rule's name; the function's name if the rule is no `NamedRule`.
        settings: its limits by their names.
    """

    rule: str
    settings: Mapping[str, Setting]


def settings_of(rules: Iterable[Rule]) -> tuple[RuleSettings, ...]:
    """Return the names and limits of these rules."""
    return tuple(_settings(rule) for rule in rules)


def _settings(rule: Rule) -> RuleSettings:
    if isinstance(rule, NamedRule):
        return RuleSettings(rule.name, dict(rule.settings))
    name = getattr(rule, "__name__", type(rule).__name__)
    return RuleSettings(name.replace("_", "-"), {})


def setting_text(value: Setting) -> str:
    """Return a setting as text; 365 and 365.0 give the same text."""
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) else ", ".join(value)


def limits_of(rules: Iterable[RuleSettings]) -> Mapping[str, list[tuple[tuple[str, str], ...]]]:
    """Return each rule's settings as text, so that 365 and 365.0 are one, and the order of rules is none."""
    found: dict[str, list[tuple[tuple[str, str], ...]]] = {}
    for each in rules:
        settings = tuple((key, setting_text(value)) for key, value in sorted(each.settings.items()))
        found.setdefault(each.rule, []).append(settings)
    return {rule: sorted(settings) for rule, settings in found.items()}


def matches_tag(tags: Iterable[str], patterns: Collection[str]) -> bool:
    """Return whether any of the tags is one of the patterns, such as "team-*"."""
    return bool(patterns) and any(fnmatchcase(tag, each) for tag in tags for each in patterns)


def checked_names(values: Collection[str], name: str) -> tuple[str, ...]:
    """Return the names in order, each once; raise TypeError for a single string."""
    if isinstance(values, str):
        raise TypeError(f"{name} must be a collection of strings, not one string")
    check_unread(values, name)
    return tuple(sorted(set(values)))


def checked_number(value: object, name: str) -> float:
    """Return a real number as a float, NaN if no float can hold it; raise TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    try:
        return float(value)
    except (OverflowError, ValueError):  # 10**400, or a NaN of Decimal's that may not be used
        return math.nan
