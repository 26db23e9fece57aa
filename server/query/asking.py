"""Who asks a query, and where the answers are."""

from typing import NamedTuple

from storage.blobs import BlobStore
from storage.database import Database
from storage.records import RecordFiles


class Asking(NamedTuple):
    """One team's question. Whoever may ask at all sees everything of the team (section 3.3.1)."""

    team_id: int
    team_name: str
    database: Database
    blobs: BlobStore
    records: RecordFiles
