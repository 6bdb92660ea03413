"""One file a question; each prints a table and JSON. Most measure a running server (`make up`)."""
