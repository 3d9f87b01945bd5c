"""The earlier report of a comparison, checked when it is read, and the comparison itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import attrs

from do_images_async._arguments import shown
from do_images_async.audit.comparison import Change, Comparison, PastFinding
from do_images_async.audit.context import Finding
from do_images_async.audit.report import SCHEMA, AuditReport, Group
from do_images_async.audit.settings import RuleSettings, Setting, limits_of, matches_tag

__all__ = ["Baseline", "compare"]

_GROUPS = ("type", "region", "distribution")
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


@attrs.frozen(kw_only=True)
class Baseline:
    """The parts of an earlier report that a later one is compared with; attributes as in `AuditReport`.

    Attributes:
        groups: the report's groups by what they are formed by ("type", "region", "distribution") and by key.
    """

    created_at: datetime
    incomplete: str | None
    price: float
    backup_price: float
    rules: tuple[RuleSettings, ...]
    ignored_rules: tuple[str, ...]
    ignored_tags: tuple[str, ...]
    total: Group
    groups: Mapping[str, Mapping[str, Group]] = attrs.field(repr=False)
    findings: tuple[PastFinding, ...] = attrs.field(repr=False)
    findings_total: int
    accounts: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: object) -> Baseline:
        """Return the report that this data is of.

        Args:
            data: what `AuditReport.to_dict` returned, or the JSON of it, parsed.

        Raises:
            ValueError: it is no such data, or that of another version; the message says where.
        """
        if not isinstance(data, dict):
            raise ValueError("no report of an audit: it is not an object")  # noqa: TRY004  (a file's content)
        try:
            return _read(_Record(cast("dict[str, Any]", data)))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"no report of an audit: {error}") from None


def compare(report: AuditReport, baseline: AuditReport | Baseline | Mapping[str, Any]) -> Comparison:
    """Compare a report with an earlier one.

    Findings are not compared if the two reports have different settings for the rule, which
    `Comparison.differences` lists, if either report ignores the image for its tags, or if only one of them
    has the image's account.

    Args:
        report: the later one.
        baseline: the earlier one: a report, its data as `AuditReport.to_dict` made it, or what
            `Baseline.from_dict` made of the data.

    Raises:
        TypeError: `report` is no `AuditReport`.
        ValueError: the baseline is no such data.
    """
    if not isinstance(report, AuditReport):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"report must be an AuditReport, not {shown(report)}")
    if isinstance(baseline, AuditReport):
        baseline = baseline.to_dict()
    if not isinstance(baseline, Baseline):
        try:
            baseline = Baseline.from_dict(baseline)
        except ValueError as error:
            raise ValueError(f"baseline is {error}") from None
    skipped = _not_compared(report, baseline)
    tags = {*report.ignored_tags, *baseline.ignored_tags}

    accounts = _accounts(report) & _accounts(baseline)

    def counts(finding: Finding | PastFinding) -> bool:
        ignored = finding.rule in skipped or matches_tag(finding.tags, tags)
        return finding.account in accounts and not ignored

    before = {_identity(each) for each in baseline.findings}
    now = {_identity(each) for each in report.findings}
    return Comparison(
        since=baseline.created_at,
        total=_change("total", report.total, baseline.total),
        grown=_grown(report, baseline),
        new=tuple(each for each in report.findings if _identity(each) not in before and counts(each)),
        gone=tuple(each for each in baseline.findings if _identity(each) not in now and counts(each)),
        exact=_holds_all(report, baseline),
        differences=tuple(_differences(report, baseline)),
        not_compared=tuple(sorted(skipped)),
    )


def _identity(finding: Finding | PastFinding) -> tuple[str | None, str, int]:
    return finding.account, finding.rule, finding.image_id


def _accounts(report: AuditReport | Baseline) -> set[str | None]:
    """Return the names of a report's accounts: None stands for the only one, which has none."""
    return set(report.accounts or (None,))


def _holds_all(report: AuditReport, baseline: Baseline) -> bool:
    """Return whether both reports are complete and hold all their findings."""
    if not report.complete or baseline.incomplete is not None:
        return False
    return len(baseline.findings) == baseline.findings_total and len(report.findings) == report.findings_total


# --- settings ---


def _not_compared(report: AuditReport, baseline: Baseline) -> set[str]:
    then, now = limits_of(baseline.rules), limits_of(report.rules)
    ignored = set(baseline.ignored_rules) ^ set(report.ignored_rules)
    return ignored | {rule for rule in then.keys() | now.keys() if then.get(rule) != now.get(rule)}


def _differences(report: AuditReport, baseline: Baseline) -> Iterator[str]:
    then, now = limits_of(baseline.rules), limits_of(report.rules)
    for rule in sorted(then.keys() | now.keys()):
        if rule not in now:
            yield f"{rule}: only then"
        elif rule not in then:
            yield f"{rule}: only now"
        elif then[rule] != now[rule]:
            yield f"{rule}: {_told(then[rule])} then, {_told(now[rule])} now"
    if _accounts(report) != _accounts(baseline):
        earlier, later = (", ".join(each.accounts) or "one without a name" for each in (baseline, report))
        yield f"accounts: {earlier} then, {later} now"
    for name, past, present in (
        ("ignored rules", baseline.ignored_rules, report.ignored_rules),
        ("ignored tags", baseline.ignored_tags, report.ignored_tags),
    ):
        if set(past) != set(present):
            yield f"{name}: {', '.join(past) or 'none'} then, {', '.join(present) or 'none'} now"
    for name, before, after in (
        ("price", baseline.price, report.price),
        ("backup price", baseline.backup_price, report.backup_price),
    ):
        if before != after:
            yield f"{name}: {before:g} then, {after:g} now"


def _told(settings: Iterable[Iterable[tuple[str, str]]]) -> str:
    return " and ".join(" ".join(f"{key} {value}" for key, value in each) for each in settings)


# --- groups ---


def _grown(report: AuditReport, baseline: Baseline) -> tuple[Change, ...]:
    later: Sequence[Iterable[Group]] = (report.by_type, report.by_region, report.by_distribution)
    changes = (
        change
        for name, groups in zip(_GROUPS, later, strict=True)
        for change in _changes(name, groups, baseline.groups[name])
        if change.gigabytes > 0
    )
    return tuple(sorted(changes, key=lambda change: (-change.gigabytes, change.group, change.key)))


def _changes(name: str, groups: Iterable[Group], before: Mapping[str, Group]) -> Iterator[Change]:
    for group in groups:
        yield _change(name, group, before.get(group.key, Group(group.key, 0, 0.0, 0.0)))


def _change(name: str, group: Group, before: Group) -> Change:
    return Change(
        group=name,
        key=group.key,
        images=group.images - before.images,
        gigabytes=round(group.gigabytes - before.gigabytes, 9),
        monthly_cost=round(group.monthly_cost - before.monthly_cost, 9),
    )


# --- reading ---


@attrs.frozen
class _Record:
    """An object of the report's JSON; its fields are checked when they are read, and errors name them."""

    data: Mapping[str, Any]
    where: str = ""

    def any(self, name: str) -> object:
        if name not in self.data:
            raise ValueError(f"it has no {self._path(name)!r}")
        return self.data[name]

    def text(self, name: str) -> str:
        return cast("str", self._typed(name, str))

    def optional_text(self, name: str) -> str | None:
        return None if self.data.get(name) is None else self.text(name)

    def whole(self, name: str) -> int:
        return cast("int", self._typed(name, int))

    def number(self, name: str) -> float:
        value = self.any(name)
        number = float(
            self.whole(name) if isinstance(value, int) else cast("float", self._typed(name, float))
        )
        if not math.isfinite(number):
            raise ValueError(f"{self._path(name)!r} is not finite")
        return number

    def truth(self, name: str) -> bool:
        return cast("bool", self._typed(name, bool))

    def texts(self, name: str) -> tuple[str, ...]:
        values = cast("list[object]", self._typed(name, list))
        return tuple(
            _Record({place: each}, self._path(name)).text(place) for place, each in _numbered(values)
        )

    def record(self, name: str) -> _Record:
        return _Record(cast("dict[str, Any]", self._typed(name, dict)), self._path(name))

    def records(self, name: str) -> Iterator[_Record]:
        values = cast("list[object]", self._typed(name, list))
        for place, each in _numbered(values):
            yield _Record({place: each}, self._path(name)).record(place)

    def _path(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def _typed(self, name: str, kind: type) -> object:
        value = self.any(name)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise ValueError(f"{self._path(name)!r} is not {_KINDS[kind]}")


def _numbered(values: Iterable[object]) -> Iterator[tuple[str, object]]:
    return ((str(place), each) for place, each in enumerate(values))


def _read(report: _Record) -> Baseline:
    if report.whole("schema") != SCHEMA:
        raise ValueError(f"its 'schema' is {report.whole('schema')}, and this version reads {SCHEMA}")
    complete = report.truth("complete")
    return Baseline(
        created_at=_moment(report.text("created_at")),
        incomplete=None if complete else report.optional_text("incomplete") or "it does not say why",
        price=report.number("price"),
        backup_price=report.number("backup_price"),
        rules=tuple(_rule(each) for each in report.records("rules")),
        ignored_rules=report.texts("ignored_rules"),
        ignored_tags=report.texts("ignored_tags"),
        total=_group("total", report),
        groups={
            name: {each.text("key"): _group(each.text("key"), each) for each in report.records(f"by_{name}")}
            for name in _GROUPS
        },
        findings=tuple(_finding(each) for each in report.records("findings")),
        findings_total=report.whole("findings_total"),
        accounts=_account_names(report),
    )


def _account_names(report: _Record) -> tuple[str, ...]:
    """Return the accounts of a combined report; earlier versions wrote no `account_names`."""
    if "account_names" in report.data:
        return report.texts("account_names")
    if "accounts" in report.data:  # the command wrote each account's sums
        return tuple(each.text("account") for each in report.records("accounts"))
    named = (each.optional_text("account") for each in report.records("findings"))
    return tuple(dict.fromkeys(name for name in named if name is not None))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("'created_at' is not a date") from None
    if moment.utcoffset() is None:
        raise ValueError("'created_at' has no time zone")
    return moment


def _rule(record: _Record) -> RuleSettings:
    settings = record.record("settings")
    return RuleSettings(record.text("rule"), {name: _setting(settings, name) for name in settings.data})


def _setting(settings: _Record, name: str) -> Setting:
    match settings.any(name):
        case str():
            return settings.text(name)
        case list():
            return settings.texts(name)
        case _:
            return settings.number(name)


def _group(key: str, record: _Record) -> Group:
    return Group(key, record.whole("images"), record.number("gigabytes"), record.number("monthly_cost"))


def _finding(record: _Record) -> PastFinding:
    return PastFinding(
        rule=record.text("rule"),
        image_id=record.whole("image_id"),
        name=record.text("name"),
        account=record.optional_text("account"),
        tags=record.texts("tags"),
    )
