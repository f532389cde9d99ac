"""The soak, short enough for every day. ``python -m faults.soak`` runs it at length."""

from faults.soak import soak


def test_much_load_of_all_kinds_leaves_nothing_behind() -> None:
    report = soak(1500)
    print(f"\n{report}")
    assert not report.unexpected
    sent = report.sent
    assert report.outcomes["APP_ERROR"] == sent["fail"] + sent["fail later"]
    assert report.outcomes["CANCELLED"] == sent["wait"]
    # Those that counted what the server holds went well, too.
    assert report.outcomes["ok"] - sent["answer"] in range(2, 100)
    before, after = report.held
    assert after["tasks"] <= before["tasks"]
    assert after["descriptors"] <= before["descriptors"]
    assert {name: count for name, count in report.rows.items() if not name.startswith("session")} == {
        "invocations": 0,
        "invocation_lines": 0,
        "stop_requests": 0,
    }
    assert report.rows["session_leases"] == 0
