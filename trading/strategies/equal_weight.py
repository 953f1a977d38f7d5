"""A fixed universe, the same weight for each asset: the plainest portfolio there is."""

ASSETS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


def strategy(context, config_dict):
    """The same weight for every asset of `config_dict["assets"]` (default: three large ones).

    `gross` (default 0.9) is the sum of the weights; `stop_loss_pct` and `take_profit_pct`, in
    percent of the last close, add stops. An asset without a last price gets no weight.
    """
    assets = config_dict.get("assets", ASSETS)
    gross = config_dict.get("gross", 0.9)
    stop_loss_pct = config_dict.get("stop_loss_pct")
    take_profit_pct = config_dict.get("take_profit_pct")

    prices = context.get_history(assets, window=1, frequency="1m", fields="close")

    targets = {}
    for asset in assets:
        last = prices[asset].iloc[-1]
        if not last > 0:  # no bar: NaN compares false
            continue
        target = {"weight": gross / len(assets)}
        if stop_loss_pct is not None:
            target["presetStopLossPrice"] = last * (1 - stop_loss_pct / 100)
        if take_profit_pct is not None:
            target["presetStopSurplusPrice"] = last * (1 + take_profit_pct / 100)
        targets[asset] = target
    return targets
