"""The shapes of requests and responses. Quick to import, for the client.

How they are made from the service's own types is in `search_api.api.responses`.
"""

from search_api.schemas.base import (
    Health,
    ImageId,
    ItemError,
    ProblemResponse,
    Schema,
    Stamp,
    image_url,
    payload,
)
from search_api.schemas.classifier import ClassifierInfo, ClassifierSummary, NoveltyInfo
from search_api.schemas.images import (
    Added,
    AddResponse,
    ChangeRequest,
    DeletedResponse,
    DeleteRequest,
    Examples,
    Image,
    Images,
    StoredImage,
)
from search_api.schemas.index import IndexInfo, LimitsInfo, Pending
from search_api.schemas.jobs import Job, JobLog, JobLogEntry, Jobs, Progress
from search_api.schemas.models import ModelDifference, ModelInfo, Models
from search_api.schemas.page import PageParams, PageQuery
from search_api.schemas.search import (
    BatchResponse,
    Classes,
    Classified,
    ClassifyResponse,
    Found,
    Group,
    Point,
    Points,
    Prediction,
    Predictions,
    RecommendRequest,
    SearchResponse,
    Source,
    Vote,
)
from search_api.schemas.snapshots import (
    Restored,
    SnapshotInfo,
    SnapshotMade,
    SnapshotRequest,
    Snapshots,
)

__all__ = [
    "AddResponse",
    "Added",
    "BatchResponse",
    "ChangeRequest",
    "Classes",
    "Classified",
    "ClassifierInfo",
    "ClassifierSummary",
    "ClassifyResponse",
    "DeleteRequest",
    "DeletedResponse",
    "Examples",
    "Found",
    "Group",
    "Health",
    "Image",
    "ImageId",
    "Images",
    "IndexInfo",
    "ItemError",
    "Job",
    "JobLog",
    "JobLogEntry",
    "Jobs",
    "LimitsInfo",
    "ModelDifference",
    "ModelInfo",
    "Models",
    "NoveltyInfo",
    "PageParams",
    "PageQuery",
    "Pending",
    "Point",
    "Points",
    "Prediction",
    "Predictions",
    "ProblemResponse",
    "Progress",
    "RecommendRequest",
    "Restored",
    "Schema",
    "SearchResponse",
    "SnapshotInfo",
    "SnapshotMade",
    "SnapshotRequest",
    "Snapshots",
    "Source",
    "Stamp",
    "StoredImage",
    "Vote",
    "image_url",
    "payload",
]
