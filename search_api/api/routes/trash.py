"""The trash: what was deleted, undoing that, and deleting for good."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter

from index.contract import Trashed
from search_api import schemas
from search_api.api.context import Context, Ctx, stamp
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.api.params import AfterId, ListLimit
from search_api.api.responses import image
from search_api.service.page import check_limit

router = APIRouter(prefix="/v1", tags=["trash"], route_class=StrictRoute)


@router.get(
    "/trash",
    operation_id="list_trash",
    summary="List deleted pictures",
    responses=problems(422, 501),
)
def list_trash(
    context: Ctx,
    limit: ListLimit = 100,
    after: AfterId = -1,
) -> schemas.Trash:
    """Lists what can be restored by ascending id. Searches and listings find none of it.

    Example: `curl http://127.0.0.1:8000/v1/trash`
    """
    check_limit(limit, context.limits)
    trash = context.engine.catalogue.trash
    found = trash.page(after, limit + 1)
    return schemas.Trash(
        points=[_trashed(context, one) for one in found[:limit]],
        total=trash.count(),
        next_after=found[limit - 1].entry.id if len(found) > limit else None,
        **stamp(context),
    )


@router.post(
    "/images/restore",
    operation_id="restore_images",
    summary="Restore deleted pictures",
    responses=problems(404, 409, 422, 501, 503, 507),
)
def restore_images(context: Ctx, request: schemas.RestoreRequest) -> schemas.RestoredImages:
    """Brings back `ids`, or with `last` what the last delete removed, as it was, in one write.

    A picture whose key or source was added again meanwhile stays in the trash, as a conflict; 409
    if that is so for all. 404, and nothing is restored, if an id is not in the trash.

    Example: `curl -H 'content-type: application/json' -d '{"last": true}'
    http://127.0.0.1:8000/v1/images/restore`
    """
    _either("restore", request.ids, request.last, "last", context)
    found = context.engine.trash.restore(request.ids)
    context.compaction.check(unembedded=found.unembedded > 0)
    return schemas.RestoredImages(
        ids=found.ids,
        conflicts=[
            schemas.RestoreConflict(id=id_, stored_as=other)
            for id_, other in found.conflicts.items()
        ],
        unembedded=found.unembedded,
        **stamp(context),
    )


@router.post(
    "/trash/purge",
    operation_id="purge_trash",
    summary="Delete pictures in the trash for good",
    responses=problems(422, 501, 503),
)
def purge_trash(context: Ctx, request: schemas.PurgeRequest) -> schemas.PurgedImages:
    """Removes records, embeddings and files of `ids`, or of `all`; ignores ids not in the trash.

    Snapshots still hold what they held: `kept_by` names them. Nothing of this can be undone.

    Example: `curl -H 'content-type: application/json' -d '{"ids": [123]}'
    http://127.0.0.1:8000/v1/trash/purge`
    """
    _either("purge", request.ids, request.all, "all", context)
    report = context.engine.trash.purge(request.ids)
    return schemas.PurgedImages(
        purged=report.purged,
        files=report.files,
        kept_by=dict(report.kept_by),
        pending=report.pending,
        indexed=report.indexed,
        **stamp(context),
    )


def iso(seconds: float) -> str:
    """A time in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _trashed(context: Context, found: Trashed) -> schemas.TrashedImage:
    expires = context.engine.trash.expiry(found.deleted)
    prefix, _, key = found.entry.source.partition(":")
    return schemas.TrashedImage(
        id=found.entry.id,
        key=key if prefix == "key" and found.entry.origin == "added" else None,
        payload=image(found.entry).payload,
        deleted=iso(found.deleted),
        expires=None if expires is None else iso(expires),
    )


def _either(kind: str, ids: list[int] | None, other: bool, name: str, context: Context) -> None:
    if (ids is None) != other:
        raise Problem(422, kind, f"expected either `ids` or `{name}`, and not both")
    most = context.limits.max_delete_ids
    if ids is not None and len(ids) > most:
        raise Problem(422, kind, f"{len(ids):,} ids in one request; send at most {most:,}")
