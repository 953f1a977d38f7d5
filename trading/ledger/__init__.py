"""Fills, fees, funding and transfers → positions, cash, profit. PURE."""
