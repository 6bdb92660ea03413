"""What is known: documents, chunks, vectors, and how they are found. Imports no other room."""
