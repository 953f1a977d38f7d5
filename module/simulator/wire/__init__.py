"""Bitget's classic v2 protocol over the engine: routes, words, rows, codes, signatures."""
