"""What is wrong with a stream of images, and what it costs."""

from do_images_async.audit.collect import audit
from do_images_async.audit.report import AuditReport, Group, RuleSummary
from do_images_async.audit.rules import (
    DEFAULT_RULES,
    PRICE,
    Context,
    Finding,
    Rule,
    Severity,
    failed_import,
    older_than,
    oversized,
    retired,
    stuck_import,
    untagged,
    worst_first,
)

__all__ = [
    "DEFAULT_RULES",
    "PRICE",
    "AuditReport",
    "Context",
    "Finding",
    "Group",
    "Rule",
    "RuleSummary",
    "Severity",
    "audit",
    "failed_import",
    "older_than",
    "oversized",
    "retired",
    "stuck_import",
    "untagged",
    "worst_first",
]
