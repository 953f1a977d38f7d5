"""Mutation testing of the rooms that decide and trade: small changes of the code, one at a time,
each of which a test must notice. `make mutation`; docs/mutation.md says how to read it."""
