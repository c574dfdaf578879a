#!/usr/bin/python3
"""Prints what failed and what was skipped in a JUnit file of ctest, and writes "PASSED FAILED SKIPPED" to a file."""
import re
import sys
import xml.etree.ElementTree as ET

KEEP_LINES = 80
KEEP_FIRST = 20
WRONG = re.compile(r"ERROR|FAILED|LINE  |error:|Error:|FAIL |WARNING: T")


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ET.parse(sys.argv[1]).getroot().iter("testcase"):
        name, status = case.get("name"), case.get("status")
        output = (case.findtext("system-out") or "").rstrip().split("\n")
        seconds = float(case.get("time") or 0)
        if status == "run":
            counts["passed"] += 1
        elif status in ("notrun", "disabled"):
            counts["skipped"] += 1
            print(f"  SKIP {name}: {output[-1].strip()}")
        else:
            counts["failed"] += 1
            reason = case.find("failure")
            what = reason.get("message") if reason is not None else ""
            print(f"  FAIL {name} ({seconds:.1f} s) {what}")
            # A report of leaks at the end may hide what came before.
            for line in [x for x in output[:-KEEP_LINES] if WRONG.search(x)][:KEEP_FIRST] + output[-KEEP_LINES:]:
                print(f"    | {line}")
    with open(sys.argv[2], "w", encoding="ascii") as out:
        out.write("{passed} {failed} {skipped}\n".format(**counts))


if __name__ == "__main__":
    main()
