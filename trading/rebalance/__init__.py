"""Everything pure about a cycle, from a strategy's answer to the letter of its orders. PURE.

    answer ─► weights ─► plan (bands, stops, moves, lots) ─► legs ─► order_info ─► execution
              └──────────────── decision ────────────────┘           └ leg_record, leg_state

`docs/planning.md` has the rules, and the map of these files.
"""
