"""Lists images with a field that this library does not know yet: `retires_at`."""

from __future__ import annotations

import asyncio
from datetime import datetime

import attrs

from do_images_async import Image, ImagesAPI, converter


@attrs.frozen(kw_only=True)
class MyImage(Image):
    retires_at: datetime | None = None


mapper = converter.copy()
mapper.register_structure_hook(Image, lambda value, _: mapper.structure(value, MyImage))


async def main() -> None:
    async with ImagesAPI.from_env(converter=mapper) as images:
        async for image in images.list(private=True):
            if isinstance(image, MyImage) and image.retires_at is not None:
                print(f"{image.name} retires on {image.retires_at:%d %B %Y}")


if __name__ == "__main__":
    asyncio.run(main())
