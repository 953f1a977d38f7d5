"""The numbers of a tear sheet, each with its unit and what it means; imported by the worker.

    frames ─► return_findings, trading_findings (a number, or why there is none, by key)
                  └─► measure: with the words of `table`, spelled by `spelling` ─► Figures

empyrical and pyfolio compute them, always with the days a year that the document names (their own
default of 252 trading days would shrink the ratios of 365 by a sixth). What a short or quiet
history cannot tell is said with the reason instead of a number.
"""
