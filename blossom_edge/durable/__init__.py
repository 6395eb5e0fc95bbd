"""The only writes to disk of the product: whole files, append-only logs, folder locks. Never decides what is written.

Every function either has done its work for good (it survives a power cut) or raises `StorageError`.
Standard library only; a lint test finds any other place that opens a file for writing.
"""

from blossom_edge.durable.failpoints import failpoint
from blossom_edge.durable.files import (
    atomic_write,
    fsync_folder,
    link_or_copy,
    make_folder,
    open_child_log,
    sweep_temporary,
)
from blossom_edge.durable.lock import FolderLock
from blossom_edge.durable.log import MAX_RECORD_BYTES, AppendLog

__all__ = [
    "MAX_RECORD_BYTES",
    "AppendLog",
    "FolderLock",
    "atomic_write",
    "failpoint",
    "fsync_folder",
    "link_or_copy",
    "make_folder",
    "open_child_log",
    "sweep_temporary",
]
