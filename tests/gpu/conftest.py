"""A failure on a lent card is printed at once: the time may run out before the summary."""


def pytest_runtest_logreport(report):
    if report.failed:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext[-3000:]}", flush=True)
