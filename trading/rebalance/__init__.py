"""PURE: targets, positions and rules in; an order plan out. No clock, no I/O, no float."""
