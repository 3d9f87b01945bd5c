"""What a log line says, whatever the machine's load."""

from __future__ import annotations

import re

__all__ = ["without_quota_wait"]


def without_quota_wait(line: str) -> str:
    """Return a line without the wait for quota, which it tells where a busy machine makes one of nothing."""
    return re.sub(r" \(after [\d.]+ s of waiting for quota\)", "", line)
