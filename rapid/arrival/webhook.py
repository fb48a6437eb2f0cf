"""The HTTP door for bucket notifications."""

from fastapi import APIRouter, HTTPException, Request

from rapid.arrival.bucket import BucketSource
from rapid.arrival.notification import MAX_BODY_BYTES


def notify_router(source: BucketSource, *, path: str = "/notify") -> APIRouter:
    """Return a router with one POST route that takes S3 event notifications.

    It answers at once, whatever the records say: a server whose notifications are refused keeps them, and
    when its queue is full refuses the upload itself. Only a wrong secret is told, with 403.
    """
    router = APIRouter()

    @router.post(path)
    async def notify(request: Request) -> dict[str, int]:
        """Take in a notification and return how many of its records were of use."""
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413, "a notification is smaller than that")
        receipt = source.notify(bytes(body))
        if receipt.n_refused and not receipt.n_taken:
            raise HTTPException(403, "opaqueData is not the agreed secret")
        return {"taken": receipt.n_taken, "ignored": receipt.n_ignored, "bad": receipt.n_bad}

    return router
