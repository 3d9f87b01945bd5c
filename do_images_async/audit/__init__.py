"""What is wrong with a stream of images, and what it costs."""

from do_images_async.audit.accounts import combined
from do_images_async.audit.collect import audit
from do_images_async.audit.compare import compare
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
from do_images_async.audit.report import AuditReport, Group, QuotaLeft, RuleSummary
from do_images_async.audit.rules import (
    DEFAULT_RULES,
    duplicate_names,
    failed_import,
    near_retirement,
    older_than,
    orphaned_backups,
    oversized,
    required_tags,
    retired,
    single_region,
    stuck_import,
    untagged,
)

__all__ = [
    "DEFAULT_RULES",
    "END_OF_SUPPORT",
    "PRICE",
    "PRICE_DATE",
    "AuditReport",
    "Change",
    "Comparison",
    "Context",
    "Finding",
    "Group",
    "Memory",
    "PastFinding",
    "QuotaLeft",
    "Rule",
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
    "oversized",
    "required_tags",
    "retired",
    "single_region",
    "stuck_import",
    "untagged",
    "worst_first",
]
