"""Trading rules of the paper exchange: steps, limits, fees and position tiers per symbol.

The rules of well known symbols follow the real exchange; any other symbol gets rules that fit the
size of its price.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

TAKER_FEE = Decimal("0.0006")
MAKER_FEE = Decimal("0.0002")
SPOT_FEE = Decimal("0.001")
PLACES_MAX = 10
NOTIONAL_MIN_FUTURES = Decimal(5)
NOTIONAL_MIN_SPOT = Decimal(1)


@dataclass(frozen=True, slots=True)
class PositionTier:
    """Positions of [start, end) USDT: at most `leverage`, keep the share `maintenance`."""

    level: int
    start: Decimal
    end: Decimal
    leverage: Decimal
    maintenance: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class FuturesInstrument:
    """Rules of one USDT perpetual. Price step = price_end_step x 10^-price_place."""

    symbol: str
    base_coin: str
    quote_coin: str
    price_place: int
    price_end_step: int
    volume_place: int
    size_min: Decimal
    size_step: Decimal
    notional_min: Decimal
    limit_size_max: Decimal
    market_size_max: Decimal
    leverage_max: Decimal
    taker_fee: Decimal
    maker_fee: Decimal
    price_band: Decimal
    """Limit prices stay within last x (1 +- band)."""
    funding_interval_h: int
    tiers: tuple[PositionTier, ...]
    depth_usdt: Decimal
    """Notional of the best level of the book; deeper levels hold more."""

    @property
    def price_step(self) -> Decimal:
        """Smallest price difference."""
        return Decimal(self.price_end_step).scaleb(-self.price_place)

    def tier(self, notional: Decimal) -> PositionTier:
        """The tier of a position of `notional` USDT (the last one beyond all)."""
        for tier in self.tiers:
            if notional < tier.end:
                return tier
        return self.tiers[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotInstrument:
    """Rules of one spot pair."""

    symbol: str
    base_coin: str
    quote_coin: str
    price_precision: int
    quantity_precision: int
    quote_precision: int
    size_min: Decimal
    notional_min: Decimal
    size_max: Decimal
    taker_fee: Decimal
    maker_fee: Decimal
    price_band: Decimal
    depth_usdt: Decimal

    @property
    def price_step(self) -> Decimal:
        """Smallest price difference."""
        return Decimal(1).scaleb(-self.price_precision)

    @property
    def size_step(self) -> Decimal:
        """Smallest difference of size in base coin."""
        return Decimal(1).scaleb(-self.quantity_precision)


@dataclass(frozen=True, slots=True)
class _Rules:
    price_place: int
    volume_place: int
    leverage_max: int
    depth_usdt: int


_KNOWN = {
    "BTCUSDT": _Rules(1, 4, 125, 400_000),
    "ETHUSDT": _Rules(2, 2, 100, 250_000),
    "SOLUSDT": _Rules(3, 1, 100, 120_000),
    "XRPUSDT": _Rules(4, 0, 75, 100_000),
    "DOGEUSDT": _Rules(5, 0, 75, 80_000),
    "BNBUSDT": _Rules(2, 2, 75, 80_000),
    "ADAUSDT": _Rules(4, 0, 75, 50_000),
    "AVAXUSDT": _Rules(3, 1, 75, 50_000),
    "LINKUSDT": _Rules(3, 1, 75, 50_000),
    "LTCUSDT": _Rules(2, 1, 75, 40_000),
    "BCHUSDT": _Rules(2, 2, 75, 40_000),
    "SUIUSDT": _Rules(4, 1, 75, 50_000),
    "DOTUSDT": _Rules(3, 1, 75, 40_000),
    "TRXUSDT": _Rules(5, 0, 75, 40_000),
}

# (end of the tier in USDT, share of the symbol's highest leverage, maintenance margin rate)
_TIER_SHAPE = (
    (150_000, "1", "0.004"),
    (600_000, "0.8", "0.005"),
    (1_500_000, "0.6", "0.0075"),
    (5_000_000, "0.4", "0.01"),
    (20_000_000, "0.2", "0.02"),
    (60_000_000, "0.08", "0.05"),
    (200_000_000, "0.04", "0.1"),
)


def _rules(symbol: str, reference_price: Decimal, price_places: int | None) -> _Rules:
    """The known rules, or some that fit the price; a tick as fine as `price_places` asks for."""
    known = _KNOWN.get(symbol)
    if known is not None:
        return replace(known, price_place=max(known.price_place, price_places or 0))
    exponent = reference_price.adjusted()
    # recorded prices are on their tick; one that is coarser than a thousandth is refined
    place = 4 - exponent if price_places is None else max(price_places, 3 - exponent)
    return _Rules(
        price_place=max(0, min(PLACES_MAX, place)),
        volume_place=max(0, min(4, exponent)),
        leverage_max=50,
        depth_usdt=30_000,
    )


def _tiers(leverage_max: int) -> tuple[PositionTier, ...]:
    tiers: list[PositionTier] = []
    start = Decimal(0)
    for level, (end, share, rate) in enumerate(_TIER_SHAPE, start=1):
        leverage = max(Decimal(1), Decimal(int(Decimal(leverage_max) * Decimal(share))))
        # at least half of the tier's initial margin must be kept
        maintenance = max(Decimal(rate), (Decimal(1) / leverage / 2).quantize(Decimal("0.0001")))
        tiers.append(PositionTier(level, start, Decimal(end), leverage, maintenance))
        start = Decimal(end)
    return tuple(tiers)


def base_coin_of(symbol: str, quote_coin: str = "USDT") -> str:
    """BTCUSDT is BTC; ValueError names a symbol that is not quoted in `quote_coin`."""
    if not symbol.endswith(quote_coin) or symbol == quote_coin:
        raise ValueError(f"symbol {symbol!r} is not quoted in {quote_coin}")
    return symbol.removesuffix(quote_coin)


def futures_instrument(
    symbol: str, reference_price: Decimal, price_places: int | None = None
) -> FuturesInstrument:
    """The contract rules of `symbol`; `reference_price` sizes what counts in coins.

    `price_places` are the decimals that its recorded prices need, where there are such.
    """
    rules = _rules(symbol, reference_price, price_places)
    step = Decimal(1).scaleb(-rules.volume_place)
    market_size_max = Decimal(int(Decimal(rules.depth_usdt) * 30 / reference_price) + 1)
    return FuturesInstrument(
        symbol=symbol,
        base_coin=base_coin_of(symbol),
        quote_coin="USDT",
        price_place=rules.price_place,
        price_end_step=1,
        volume_place=rules.volume_place,
        size_min=step,
        size_step=step,
        notional_min=NOTIONAL_MIN_FUTURES,
        limit_size_max=market_size_max * 5,
        market_size_max=market_size_max,
        leverage_max=Decimal(rules.leverage_max),
        taker_fee=TAKER_FEE,
        maker_fee=MAKER_FEE,
        price_band=Decimal("0.05"),
        funding_interval_h=8,
        tiers=_tiers(rules.leverage_max),
        depth_usdt=Decimal(rules.depth_usdt),
    )


def spot_instrument(
    symbol: str, reference_price: Decimal, price_places: int | None = None
) -> SpotInstrument:
    """The spot rules of `symbol`; the arguments are those of `futures_instrument`."""
    rules = _rules(symbol, reference_price, price_places)
    precision = min(8, rules.volume_place + 2)
    return SpotInstrument(
        symbol=symbol,
        base_coin=base_coin_of(symbol),
        quote_coin="USDT",
        price_precision=rules.price_place,
        quantity_precision=precision,
        quote_precision=8,
        size_min=Decimal(0),
        notional_min=NOTIONAL_MIN_SPOT,
        size_max=Decimal(int(Decimal(rules.depth_usdt) * 150 / reference_price) + 1),
        taker_fee=SPOT_FEE,
        maker_fee=SPOT_FEE,
        price_band=Decimal("0.05"),
        depth_usdt=Decimal(rules.depth_usdt),
    )
