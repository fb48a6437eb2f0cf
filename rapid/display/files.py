"""Serve products: read only, never outside the store, cached by browsers as long as their names allow."""

import asyncio
import hashlib
import re
from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from starlette.responses import Response

from rapid.errors import NotFoundError
from rapid.products.naming import is_safe_key
from rapid.products.store import ProductsStore

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".ecsv": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".fits": "application/fits",
    ".fz": "application/fits",
    ".gz": "application/gzip",
    ".mp4": "video/mp4",
    ".zip": "application/zip",
}
"""Everything else is a download: a product must not run as a page of ours."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_VERSIONED = re.compile(r"\.v\d+\.[A-Za-z0-9]+$")


def products_routes(store: ProductsStore) -> APIRouter:
    """Return the route ``/products/{key}`` over a store."""
    router = APIRouter()

    @router.get(
        "/products/{key:path}",
        tags=["products"],
        summary="A product's bytes",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}, 304: {"description": "Not changed"}},
    )
    async def product(key: str, request: Request) -> Response:
        """Return a product by its key, as exposures name them."""
        if not is_safe_key(key):
            raise NotFoundError("product", key[:200])
        data = await asyncio.to_thread(store.get, key)
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        versioned = _VERSIONED.search(key) is not None
        headers = {
            "ETag": tag,
            # A version of a summary is never written again with other contents; a detector's product may be.
            "Cache-Control": "public, max-age=31536000, immutable" if versioned else "no-cache",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        if tag in [part.strip() for part in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        media_type = CONTENT_TYPES.get(PurePosixPath(key).suffix.lower())
        if media_type is None:
            media_type = "application/octet-stream"
            headers["Content-Disposition"] = f'attachment; filename="{PurePosixPath(key).name}"'
        if media_type.startswith("video/"):
            return _part(data, request.headers.get("range", ""), media_type, headers)
        return Response(data, media_type=media_type, headers=headers)

    return router


def _part(data: bytes, wanted: str, media_type: str, headers: dict[str, str]) -> Response:
    """Return the part of a movie that a player asks for, or all of it: without parts, browsers cannot jump in time."""
    headers |= {"Accept-Ranges": "bytes", "Content-Encoding": "identity"}
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or not any(match.groups()):
        return Response(data, media_type=media_type, headers=headers)
    first, last = match.groups()
    begin = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if begin > end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
    return Response(data[begin : end + 1], status_code=206, media_type=media_type, headers=headers)
