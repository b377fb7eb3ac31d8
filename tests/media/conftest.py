"""Real databases and blob stores, for every test of the server's parts that asks for one."""

from tests.databases import database, database_url, postgres_server
from tests.media.blob_stores import blobs, bucket, endpoint, moto_server

__all__ = ["blobs", "bucket", "database", "database_url", "endpoint", "moto_server", "postgres_server"]
