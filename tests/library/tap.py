"""Runs tests written in Python and tells what came of them, as TAP (docs/testing.md)."""

import pathlib
import tempfile

LINES_MAX = 40  # of a failure


class Skip(Exception):
    """Raised by a test that cannot run here, with the reason."""


def run_tests(tests):
    """`tests`: pairs of a sentence and a function, which gets a folder of its own. The exit status."""
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        with tempfile.TemporaryDirectory() as work:
            try:
                test(pathlib.Path(work))
                print(f"ok {number} - {name}", flush=True)
            except Skip as reason:
                print(f"ok {number} - {name} # SKIP {reason}", flush=True)
            except Exception as problem:  # pylint: disable=broad-except
                failed += 1
                print(f"not ok {number} - {name}")
                for line in (str(problem) or repr(problem)).splitlines()[:LINES_MAX]:
                    print(f"# {line}")
    return 1 if failed else 0
