"""Our own HTTP: connection, problem documents, and how the vocabulary is spelled in JSON."""
