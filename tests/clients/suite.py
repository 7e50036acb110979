"""Runs the checks of one client and tells how each ended, a line each."""

import argparse
import json
import sys
import time
import traceback
from pathlib import Path


def run(client, version, checks):
    """`checks` are functions of the fleet's description; the exit status tells of failures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("fleet", help="the file that fleet.py has written")
    fleet = json.loads(Path(parser.parse_args().fleet).read_text())
    failed = 0
    for check in checks:
        begin = time.monotonic()
        try:
            check(fleet)
            print(f"ok      {check.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as error:  # what a client raises is its own
            failed += 1
            print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(limit=-3)
    print(f"{client} {version}: {len(checks) - failed} of {len(checks)} pass")
    sys.exit(1 if failed else 0)


def twice(ask):
    """The first request of a minute may pass, and another suite may have made it."""
    def again():
        ask()
        return ask()

    return again


def raises(kind, ask):
    """The exception of exactly this class."""
    try:
        answer = ask()
    except Exception as error:
        if type(error) is kind:
            return error
        raise AssertionError(f"{kind.__name__} was expected, got {error!r}") from error
    raise AssertionError(f"{kind.__name__} was expected, got {answer!r}")
