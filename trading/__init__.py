"""The engine: decides, executes and coordinates. Reads from the bottom up: rebalance, execution,
session, then the processes."""
