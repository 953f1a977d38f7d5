"""The pictures of a tear sheet, drawn dark with matplotlib; imported by the worker.

look (colours) ─► axes (scaffolding) ─► return_charts, trading_charts ─► drawing (the table of
                                        all charts; the page's pictures and the one picture)
"""
