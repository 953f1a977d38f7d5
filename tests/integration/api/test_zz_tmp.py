import subprocess
from datetime import UTC, datetime
from module.ports import Alert
from tests.fakes.serving import served
from tests.integration.api.test_results import measured
def test_x(platform, measured):
    user, client, sid = measured
    letter = {"cycle": "2026-11-21T12:00:00Z","number": 1,"stage": "done","reason": "","targets": {"BTCUSDT": {"weight": "0.25"},"SOLUSDT":{"weight":"0.1"}},
      "skipped": [{"symbol":"SOLUSDT","reason":"below-minimum"}],
      "legs": [{"leg": {"symbol":"BTCUSDT","side":"buy","size":"0.037","reduce_only":False}, "state": "filled", "abandoned": None, "slices": [{"filled_size":"0.037","average_price":"61000.1","message":None}]}]}
    platform.doors.sessions.write_order_info(sid, letter, 1, 1)
    platform.doors.alerts.add(Alert("critical","critical","[Futures] <b>Boom</b>",(("Time","now"),),"c",sid,user.user_id,datetime.now(UTC)),(),datetime.now(UTC))
    with served() as serve:
        url = serve(platform.app)
        print(subprocess.run(["node","/tmp/dom.js",url,client.token],capture_output=True,text=True,timeout=60))
