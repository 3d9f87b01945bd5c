"""A web backend on FastAPI. Every request shares one `ImagesAPI`, on the session that the backend has."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict, TypeVar

import aiohttp
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from do_images_async import ImagesAPI, RetryPolicy, converter
from do_images_async.errors import DOImagesError, NotFoundError, QuotaWaitError, RateLimitError

T = TypeVar("T")
log = logging.getLogger("backend")


class State(TypedDict):
    images: ImagesAPI


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[State]:
    """Make the client before the first request, and close it after the last."""
    async with (
        aiohttp.ClientSession() as session,  # the backend's own, for all that it calls
        ImagesAPI.from_env(
            session=session, max_wait=1.0, retry=RetryPolicy(attempts=2), timeout=10
        ) as images,
    ):
        yield {"images": images}


def images_api(request: Request) -> ImagesAPI:
    images: ImagesAPI = request.state.images
    return images


Images = Annotated[ImagesAPI, Depends(images_api)]
app = FastAPI(lifespan=lifespan)


async def while_connected(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """Return the call's result; cancel it if the client disconnects, which FastAPI does not do itself."""
    calling = asyncio.ensure_future(call)
    leaving = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({calling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not calling.done():
            raise HTTPException(499)  # the client is gone and does not see it
        return calling.result()
    finally:
        calling.cancel()
        leaving.cancel()
        await asyncio.gather(calling, leaving, return_exceptions=True)


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@app.get("/images/{image}")
async def show(request: Request, image: str, images: Images) -> JSONResponse:
    try:
        key = int(image) if image.isdecimal() else image
        found = await while_connected(request, images.get(key))
    except ValueError as error:  # only here: elsewhere it would be a mistake of ours, and a 500
        return JSONResponse({"error": str(error)}, status_code=400)
    return JSONResponse(converter.unstructure(found))


@app.get("/health")
async def health(images: Images) -> JSONResponse:
    stats = images.limiter.stats()
    return JSONResponse({"in_flight": stats.in_flight, "tokens_left": min(stats.available)})


@app.exception_handler(QuotaWaitError)
@app.exception_handler(RateLimitError)
async def busy(_: Request, error: QuotaWaitError | RateLimitError) -> JSONResponse:
    # Nothing was sent, or it was refused. Tell the caller when to retry.
    wait = error.wait if isinstance(error, QuotaWaitError) else error.retry_after
    seconds = max(1, math.ceil(wait or 60))
    return JSONResponse({"error": "busy"}, status_code=503, headers={"Retry-After": str(seconds)})


@app.exception_handler(NotFoundError)
async def missing(_: Request, error: NotFoundError) -> JSONResponse:
    return JSONResponse({"error": "no such image"}, status_code=404)


@app.exception_handler(DOImagesError)
async def failed(_: Request, error: DOImagesError) -> JSONResponse:
    log.warning("%s", error)
    return JSONResponse({"error": "the image service failed"}, status_code=502)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), log_level="warning")
