"""The example of the documents runs as it is written there, against an exchange it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "docs" / "examples" / "paper_with_ccxt.py"


@pytest.mark.timeout(90)
@pytest.mark.endpoint("POST /api/v2/mix/account/set-position-mode", "the example trades both modes")
@pytest.mark.endpoint("POST /api/v2/spot/trade/place-order", "the example buys and sells coins")
def test_a_plain_ccxt_program_trades_both_modes_and_spot_and_reads_everything_back() -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = ran.stdout
    one_way, hedged, spot = re.split(r"\n-+\n", said)[1:]
    assert "position: long 0.05" in one_way
    assert "position: short 0.05" in one_way
    assert one_way.count("stop: pos_loss of the net") == 2
    assert "waiting for a price: [('buy', 0.01" in one_way
    assert one_way.count("fill: ") == 4
    assert {"stop: pos_loss of the long", "stop: pos_loss of the short"} <= {
        line.partition(" at ")[0] for line in hedged.splitlines()
    }
    assert "stops left behind: 0" in hedged
    assert hedged.count("closed: ") == 2
    assert spot.count("fill: ") == 2
    assert said.rstrip().endswith("done")
