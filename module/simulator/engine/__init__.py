"""The exchange itself, PURE and deterministic: orders, positions, money, risk."""
