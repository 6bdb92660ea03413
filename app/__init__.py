"""Answers. Only reads the knowledge base; speaks to the engine over HTTP."""
