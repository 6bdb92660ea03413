"""Keeps what is known true to the files. The only writer; imports kb and no other room."""
