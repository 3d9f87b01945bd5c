"""An account whose server accepts every transfer of an image, also a second one to the same region."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs

from tests.support.servers import Answer, Received, image_document, reply


@attrs.define
class CopyingAccount:
    """The image 7, which is in nyc3, and its transfers; call it with each request.

    Attributes:
        names: the region that every action names, as some servers do; None for the one it goes to.
        completes: whether a transfer that is polled is completed.
        shows: whether the image shows a region when its transfer is completed.
        lists: whether the list of its actions shows them.
        regions: the regions that hold the image.
        actions: the transfers.
        targets: the regions that they go to.
    """

    names: str | None = None
    completes: bool = True
    shows: bool = True
    lists: bool = True
    regions: list[str] = attrs.field(factory=lambda: ["nyc3"])
    actions: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]])
    targets: list[str] = attrs.field(factory=list[str])

    def __call__(self, request: Received) -> Answer:
        if request.method == "POST":
            return reply({"action": self.start(request.json()["region"])}, status=201)
        if request.path.endswith("/actions"):
            listed = self.actions if self.lists else []
            return reply({"actions": listed, "meta": {"total": len(listed)}})
        if "/actions/" in request.path:
            return reply({"action": self.poll(int(request.path.rpartition("/")[2]))})
        return reply({"image": image_document(7, regions=self.regions)})

    def start(self, region: str) -> dict[str, Any]:
        """Start a transfer."""
        self.targets.append(region)
        action = {
            "id": len(self.targets),
            "status": "in-progress",
            "type": "transfer",
            "resource_id": 7,
            "resource_type": "image",
            "region_slug": self.names or region,
        }
        self.actions.append(action)
        return action

    def poll(self, number: int) -> dict[str, Any]:
        """Return a transfer, after it was completed."""
        action = self.actions[number - 1]
        if self.completes:
            action |= {"status": "completed", "completed_at": datetime.now(UTC).isoformat()}
            if self.shows:
                self.regions.append(self.targets[number - 1])
        return action
