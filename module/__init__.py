"""Shared parts: vocabulary, ports and edges. Knows nothing of the rooms above."""
