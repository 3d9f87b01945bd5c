"""A web backend on aiohttp.web. Every request shares one `ImagesAPI`, on the session that the backend has."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web

from do_images_async import ImagesAPI, RetryPolicy, converter
from do_images_async.errors import DOImagesError, NotFoundError, QuotaWaitError, RateLimitError

IMAGES = web.AppKey("images", ImagesAPI)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger("backend")
routes = web.RouteTableDef()


async def images_api(app: web.Application) -> AsyncIterator[None]:
    """Make the client before the first request, and close it after the last."""
    async with (
        aiohttp.ClientSession() as session,  # the backend's own, for all that it calls
        ImagesAPI.from_env(
            session=session, max_wait=1.0, retry=RetryPolicy(attempts=2), timeout=10
        ) as images,
    ):
        app[IMAGES] = images
        yield


@routes.get("/images/{image}")
async def show(request: web.Request) -> web.Response:
    key = request.match_info["image"]
    try:
        image = await request.app[IMAGES].get(int(key) if key.isdecimal() else key)
    except ValueError as error:  # only here: elsewhere it would be a mistake of ours, and a 500
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response(converter.unstructure(image))


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    stats = request.app[IMAGES].limiter.stats()
    return web.json_response({"in_flight": stats.in_flight, "tokens_left": min(stats.available)})


@web.middleware
async def errors_become_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (QuotaWaitError, RateLimitError) as error:
        # Nothing was sent, or it was refused. Tell the caller when to retry.
        wait = error.wait if isinstance(error, QuotaWaitError) else error.retry_after
        seconds = max(1, math.ceil(wait or 60))
        return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": str(seconds)})
    except NotFoundError:
        return web.json_response({"error": "no such image"}, status=404)
    except DOImagesError as error:
        log.warning("%s", error)
        return web.json_response({"error": "the image service failed"}, status=502)


def application() -> web.Application:
    app = web.Application(middlewares=[errors_become_answers])
    app.cleanup_ctx.append(images_api)
    app.add_routes(routes)
    return app


async def under_gunicorn() -> web.AppRunner:
    """Return the application for aiohttp's gunicorn worker, which has no setting for handler_cancellation."""
    return web.AppRunner(application(), handler_cancellation=True, access_log=None)


if __name__ == "__main__":
    # Without handler_cancellation a call goes on, and keeps its permit, after its client has disconnected.
    web.run_app(
        application(),
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8080")),
        handler_cancellation=True,
        access_log=None,
        print=lambda *_: None,
    )
