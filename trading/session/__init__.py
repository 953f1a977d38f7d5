"""Effects of a running session, only through ports: bells, the letter, the loop."""
