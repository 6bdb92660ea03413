"""Trains. Uses kb only for records, models, prompt, search and release. Not built yet."""
