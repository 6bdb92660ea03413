"""A fresh home for each test, as ingest's tests have it."""

from tests.ingest.conftest import home

__all__ = ["home"]
