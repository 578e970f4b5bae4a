"""Reading and writing locations: local paths, `file://`, `s3://`, `minio://` and `gs://`.

Whoever uses storage takes its names from here. A location is text until it comes in; `Location.parse` reads it once, and
everything below takes the parsed one. Tables go through `pyarrow.fs`, whole files and folders through the minio client (Google
storage: pyarrow). Nothing half-written ever stands under its final name. Where a store is and who may use it comes from the
environment: see `remote.py`. README.md has the modules in their order.
"""

from tritower.storage.atomic import directory as atomic_directory
from tritower.storage.atomic import exclusive
from tritower.storage.atomic import file as atomic_file
from tritower.storage.keeping import beside, kept, located, patiently, tried
from tritower.storage.listing import filesystem, is_hidden, list_files, listing
from tritower.storage.local import parquet_parts, read_json, write_json, write_text
from tritower.storage.location import Location, LocationLike, is_local, local_path
from tritower.storage.manifest import MARK
from tritower.storage.notes import leave as leave_notes
from tritower.storage.notes import read as read_notes
from tritower.storage.remote import reading
from tritower.storage.swap import read as read_small
from tritower.storage.swap import write as swap_small
from tritower.storage.transfer import fetch, fetch_tree, local_parquet_files, names, remove, upload, upload_tree

__all__ = [
    "MARK", "Location", "LocationLike", "atomic_directory", "atomic_file", "beside", "exclusive", "fetch", "fetch_tree",
    "filesystem", "is_hidden", "is_local", "kept", "leave_notes", "list_files", "listing", "local_parquet_files", "local_path",
    "located", "names", "parquet_parts", "patiently", "read_json", "read_notes", "read_small", "reading", "remove",
    "swap_small", "tried", "upload", "upload_tree", "write_json", "write_text",
]  # fmt: skip
