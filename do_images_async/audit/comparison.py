"""The difference between an audit and an earlier one: the result of `compare`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from do_images_async.audit.context import Finding, as_data

__all__ = ["Change", "Comparison", "PastFinding"]


@attrs.frozen(kw_only=True)
class Change:
    """The change of a group of images.

    Attributes:
        group: the property that forms the group: "total", "type", "region" or "distribution".
        key: its key, as in the report.
        images, gigabytes, monthly_cost: the increase; negative if the group shrank.
    """

    group: str
    key: str
    images: int
    gigabytes: float
    monthly_cost: float


@attrs.frozen(kw_only=True)
class PastFinding:
    """A finding of the earlier report: see `Finding`."""

    rule: str
    image_id: int
    name: str
    account: str | None = None
    tags: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Comparison:
    """The comparison of an audit with an earlier one of the same account.

    Attributes:
        since: the moment of the earlier report.
        total: the change of everything.
        grown: groups that occupy more than before, the largest increase first.
        new: findings that the earlier report does not have, the worst first.
        gone: findings that only the earlier report has.
        exact: whether both reports are complete and hold all their findings. If not, `new` and
            `gone` may have wrong findings or lack some, since findings were cut off or images not read.
        differences: settings that differ, each as "old: days 365 then, days 180 now"; also the accounts, of
            which those that only one report has are in neither `new` nor `gone`, but in `total` and `grown`.
        not_compared: rules whose settings differ; their findings are in neither `new` nor `gone`.
    """

    since: datetime
    total: Change
    grown: tuple[Change, ...]
    new: tuple[Finding, ...]
    gone: tuple[PastFinding, ...]
    exact: bool
    differences: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        return {
            "since": self.since.isoformat(),
            "exact": self.exact,
            "differences": list(self.differences),
            "not_compared": list(self.not_compared),
            "total": attrs.asdict(self.total),
            "grown": [attrs.asdict(change) for change in self.grown],
            "new": [as_data(each) for each in self.new],
            "gone": [as_data(each) for each in self.gone],
        }
