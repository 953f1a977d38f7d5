def strategy(context, config_dict):
    """
    User-defined rebalancing strategy

    Args:
        context: DataContext with get_history() method
        config_dict: Strategy configuration

    Returns:
        dict: {symbol: {'weight': float, 'presetStopSurplusPrice': float, 'presetStopLossPrice': float}}
    """
    assets = ['BTCUSDT', 'ETHUSDT', 'SOLUSDT']

    # Get 100 bars of 1-minute close prices
    prices = context.get_history(assets, window=100, frequency='1m', fields='close')

    # Calculate momentum (example)
    returns = prices.pct_change(20)  # 20-bar return

    # Equal weight to positive momentum assets
    weights = {}
    positive_assets = [a for a in assets if returns[a].iloc[-1] > 0]

    if positive_assets:
        weight_per_asset = 1.0 / len(positive_assets)
        for asset in positive_assets:
            current_price = prices[asset].iloc[-1]
            weights[asset] = {
                'weight': weight_per_asset,
                'presetStopSurplusPrice': current_price * 1.05,  # 5% TP
                'presetStopLossPrice': current_price * 0.97     # 3% SL
            }

    return weights
