"""The page that `GET /` shows, as plain files."""
