"""Audits the account in DIGITALOCEAN_TOKEN with the standard rules and a custom one."""

from __future__ import annotations

import asyncio
import sys

from do_images_async import Image, ImagesAPI
from do_images_async.audit import DEFAULT_RULES, Context, Finding, Severity, audit


def no_owner(image: Image, context: Context) -> Finding | None:
    """Find our images that have no team tag."""
    if image.public or any(tag.startswith("team-") for tag in image.tags or ()):
        return None
    return context.finding(image, "no-owner", Severity.MEDIUM, "no team tag", "ask who made it, and tag it")


async def main() -> int:
    async with ImagesAPI.from_env() as images:
        report = await audit(images.list(private=True, strict=True), rules=[*DEFAULT_RULES, no_owner])
    print(f"{report.images} images, {report.gigabytes:.0f} GB, {report.total.monthly_cost:.2f} USD a month")
    print(f"deleting the stale ones would save {report.stale.monthly_cost:.2f} USD a month")
    for summary in report.findings_by_rule:
        print(f"  {summary.severity.name:7} {summary.rule:16} {summary.findings:5} images: {summary.action}")
    return 1 if any(finding.severity >= Severity.HIGH for finding in report.findings) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
