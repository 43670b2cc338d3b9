"""Snapshots: create, list, restore and delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from index.contract import Snapshot, SnapshotError
from search_api.api.context import Ctx, stamp
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.schemas import Restored, SnapshotInfo, SnapshotMade, SnapshotRequest, Snapshots
from search_api.service.storage.trash import remove_snapshot

router = APIRouter(prefix="/v1/snapshots", tags=["snapshots"], route_class=StrictRoute)

Name = Annotated[str, Path(max_length=200, description="The snapshot's name.")]


@router.post(
    "",
    operation_id="create_snapshot",
    status_code=201,
    summary="Create a snapshot",
    responses=problems(409, 422, 501, 503, 507),
)
def create_snapshot(context: Ctx, request: SnapshotRequest | None = None) -> SnapshotMade:
    """Copies the whole catalogue durably, while searches and writes continue.

    It is checked before this answers: what is answered with 201 can be restored. A name that is
    taken is refused with 409, also when an earlier attempt took it; the answer says how many
    pictures that snapshot has and when it was made. So is a snapshot to which bytes of added
    pictures are missing, unless `allow_missing`.

    Example: `curl -H 'content-type: application/json' -d '{"name": "monday"}'
    http://127.0.0.1:8000/v1/snapshots`
    """
    engine = context.engine
    wanted = request or SnapshotRequest()
    made = engine.storage.create_snapshot(wanted.name, allow_missing=wanted.allow_missing)
    generation = engine.served.current().manifest.generation
    return SnapshotMade(**_info(made).model_dump(), generation=generation)


@router.get("", operation_id="list_snapshots", summary="List snapshots", responses=problems(503))
def list_snapshots(context: Ctx) -> Snapshots:
    """Lists snapshots by name; `problem` says if one is damaged.

    Example: `curl http://127.0.0.1:8000/v1/snapshots`
    """
    names = context.engine.store.snapshots.names()
    return Snapshots(snapshots=[_described(context, name) for name in names], **stamp(context))


@router.post(
    "/{name}/restore",
    operation_id="restore_snapshot",
    summary="Restore a snapshot",
    responses=problems(404, 409, 422, 501, 503, 507),
)
def restore_snapshot(
    context: Ctx,
    name: Name,
    allow_missing: Annotated[
        bool, Query(description="Restore it even if bytes of added pictures are missing.")
    ] = False,
) -> Restored:
    """Replaces everything that is indexed with the contents of the snapshot, in one write.

    Searches continue, and find the snapshot's pictures from then on. Refused with 409 if the
    snapshot belongs to another model, or if bytes of added pictures are missing and
    `allow_missing` is not given.

    Example: `curl -X POST http://127.0.0.1:8000/v1/snapshots/monday/restore`
    """
    engine = context.engine
    engine.storage.check_room()
    snapshot, changed, deleted = engine.store.snapshots.restore(name, allow_missing=allow_missing)
    context.compaction.check(restored=True)
    return Restored(snapshot=snapshot.name, changed=changed, deleted=deleted, **stamp(context))


@router.delete(
    "/{name}",
    operation_id="delete_snapshot",
    status_code=204,
    summary="Delete a snapshot",
    responses=problems(404, 409, 422, 501),
)
def delete_snapshot(context: Ctx, name: Name) -> None:
    """Deletes the copy, and soon what it alone kept of deleted pictures; the index stays.

    Waits while the snapshot is being restored.

    Example: `curl -X DELETE http://127.0.0.1:8000/v1/snapshots/monday`
    """
    remove_snapshot(context.engine.store, name)


def _described(context: Ctx, name: str) -> SnapshotInfo:
    try:
        return _info(context.engine.store.snapshots.read(name))
    except SnapshotError as error:
        return SnapshotInfo(
            name=name,
            count=0,
            model=None,
            sequence=0,
            created="",
            size=0,
            problem=context.public(str(error)),
        )


def _info(snapshot: Snapshot) -> SnapshotInfo:
    return SnapshotInfo(
        name=snapshot.name,
        count=snapshot.count,
        model=snapshot.model_digest,
        sequence=snapshot.sequence,
        created=snapshot.created,
        size=snapshot.size,
    )
