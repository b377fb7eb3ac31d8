"""GET /v1/blobs/{key}: a result or a file by its signed URL, without a key, where blobs are kept in a directory."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from media.blob_names import media_type
from media.blob_responses import BlobResponse, gone
from media.local_blobs import LocalBlobs
from media.openapi import Operation
from media.services import services_of


async def blob(request: Request) -> Response:
    """The bytes, or a range of them, as what the URL says they are."""
    store = services_of(request).blobs
    key = request.path_params["key"]
    if not isinstance(store, LocalBlobs):  # another store's URLs lead there
        raise gone()
    query = request.query_params
    store.signer.check("GET", key, query)
    if (info := await store.head(key)) is None:
        raise gone()
    kind = media_type(query.get("type", ""), key)
    return BlobResponse(request, store, info, content_type=kind, filename=query.get("name", ""))


routes = [Route("/v1/blobs/{key:path}", blob, methods=["GET"])]
operations = [
    Operation(
        "get",
        "/v1/blobs/{key}",
        "Get a result by its signed URL; 403 url_expired or invalid_signature when that is no longer good",
        produces=("application/octet-stream",),
    )
]
