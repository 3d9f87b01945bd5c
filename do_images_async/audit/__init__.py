"""The audit of a stream of images: what is wrong with them, and what they cost."""

from do_images_async.audit.accounts import combined
from do_images_async.audit.baseline import Baseline, compare
from do_images_async.audit.collect import audit
from do_images_async.audit.comparison import Change, Comparison, PastFinding
from do_images_async.audit.context import (
    PRICE,
    PRICE_DATE,
    Context,
    Finding,
    Rule,
    Severity,
    worst_first,
)
from do_images_async.audit.lifecycle import END_OF_SUPPORT
from do_images_async.audit.memory import Memory
from do_images_async.audit.report import SCHEMA, AuditReport, Group, QuotaLeft, RuleSummary
from do_images_async.audit.rules import (
    DEFAULT_RULES,
    duplicate_names,
    failed_import,
    near_retirement,
    older_than,
    orphaned_backups,
    orphaned_snapshots,
    oversized,
    required_tags,
    retired,
    single_region,
    stuck_import,
    untagged,
)
from do_images_async.audit.settings import NamedRule, RuleSettings

__all__ = [
    "DEFAULT_RULES",
    "END_OF_SUPPORT",
    "PRICE",
    "PRICE_DATE",
    "SCHEMA",
    "AuditReport",
    "Baseline",
    "Change",
    "Comparison",
    "Context",
    "Finding",
    "Group",
    "Memory",
    "NamedRule",
    "PastFinding",
    "QuotaLeft",
    "Rule",
    "RuleSettings",
    "RuleSummary",
    "Severity",
    "audit",
    "combined",
    "compare",
    "duplicate_names",
    "failed_import",
    "near_retirement",
    "older_than",
    "orphaned_backups",
    "orphaned_snapshots",
    "oversized",
    "required_tags",
    "retired",
    "single_region",
    "stuck_import",
    "untagged",
    "worst_first",
]
