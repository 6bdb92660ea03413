"""One file a question; each prints a table and JSON. They measure a running server (`make up`)."""
