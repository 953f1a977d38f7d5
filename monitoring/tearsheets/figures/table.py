"""Every number of a sheet: its title, how it is written, what it means; in the order of the page.

Braces stand for what `measure` knows of the history: {word} and {Word} of one period, {count} of
returns, {days_per_year}, {began_at} of value, how many {drawdowns} are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """One number to be; `kind` is one of `spelling.KINDS`."""

    key: str
    title: str
    kind: str
    meaning: str


EXPOSURE: Final = "Value of all positions, long and short alike, divided by the portfolio's value."
MEAN_PROFIT: Final = "Mean net profit of such trades."

TABLE: Final = (
    (
        "Result",
        (
            Entry("total_return", "Total return", "change",
                  "What one unit of money earned over the whole time. Time-weighted: deposits and "
                  "withdrawals do not count as profit or loss."),
            Entry("net_profit", "Net profit", "profit",
                  "Value at the end, minus value at the start, minus what was paid in."),
            Entry("value_now", "Value at the end", "amount", "It began at {began_at}."),
            Entry("net_transfers", "Paid in, net", "profit",
                  "Deposits minus withdrawals meanwhile."),
            Entry("annual_return", "Return per year", "change",
                  "The total return as a yearly rate (compounded, {days_per_year} days)."),
        ),
    ),
    (
        "Risk",
        (
            Entry("max_drawdown", "Deepest drawdown", "change",
                  "The largest fall from a peak to a later low."),
            Entry("drawdown", "Drawdown at the end", "change",
                  "How far the end lies below the highest point so far."),
            Entry("longest_drawdown", "Longest time below a peak", "days",
                  "Among the {drawdowns} deepest drawdowns."),
            Entry("volatility", "Volatility per year", "swing",
                  "How much the value swings: standard deviation of the returns of one {word}, "
                  "scaled to a year of {days_per_year} days."),
            Entry("value_at_risk", "A bad {word} (5 %)", "change",
                  "One {word} in twenty was worse than this."),
            Entry("expected_shortfall", "Average of the bad {word}s", "change",
                  "Mean of the worst twentieth of all returns of one {word}."),
            Entry("unprotected_s", "Time without a stop", "seconds",
                  "Seconds times positions that stood without the stop they should have had."),
        ),
    ),
    (
        "Return for risk",
        (
            Entry("sharpe", "Sharpe ratio", "ratio",
                  "Mean return divided by its swing, per year of {days_per_year} days, from "
                  "{count:,} returns of one {word}; risk-free rate 0."),
            Entry("sortino", "Sortino ratio", "ratio",
                  "Like Sharpe, but only losses count as risk."),
            Entry("calmar", "Calmar ratio", "ratio",
                  "Return per year divided by the deepest drawdown."),
            Entry("steadiness", "Steadiness", "ratio",
                  "How close the growth is to an even line: 1 is even, 0 is chance."),
            Entry("won_periods", "{Word}s that gained", "share",
                  "Share of the {count:,} returns of one {word} that were above zero."),
        ),
    ),
    (
        "Trading and costs",
        (
            Entry("fills", "Fills", "count",
                  "Orders, or parts of them, that were carried out."),
            Entry("traded_notional", "Traded value", "amount",
                  "Size times price, over all fills, bought and sold."),
            Entry("turnover", "Turnover", "times",
                  "Traded value divided by the mean value of the portfolio."),
            Entry("fees", "Fees", "profit", "What the exchange took; negative: paid."),
            Entry("funding", "Funding", "profit", "Paid or received for holding futures."),
            Entry("cost_bps", "Fees per traded value", "cost",
                  "In hundredths of a percent of the traded value."),
            Entry("slippage_bps", "Slippage", "worse",
                  "How much worse than at the moment of the decision it was bought and sold; "
                  "negative is better."),
            Entry("trades", "Closed trades", "count", "Positions that were opened and closed."),
            Entry("win_rate", "Trades that won", "share",
                  "Share of closed trades with a profit after fees and funding."),
            Entry("profit_factor", "Profit factor", "ratio",
                  "What all winning trades earned, divided by what all others lost."),
            Entry("average_win", "Average winner", "profit", MEAN_PROFIT),
            Entry("average_loss", "Average loser", "profit", MEAN_PROFIT),
            Entry("gross_exposure_mean", "Leverage in use, mean", "times", EXPOSURE),
            Entry("gross_exposure_max", "Leverage in use, highest", "times", EXPOSURE),
        ),
    ),
)  # fmt: skip
