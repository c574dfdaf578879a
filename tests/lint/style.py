#!/usr/bin/python3
"""Style lint: trailing white space, missing last newline, spaces for indentation in C, words that do not belong into a
tree; and clang-format 14 on the C files that changed. `--all` looks at the format of every C file.
Prints the longest files, which is a report and no complaint."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEXT = (".c", ".h", ".py", ".sh", ".md", ".txt", ".cmake", ".proto", ".json", ".yaml", ".yml", "")
# Paths of one machine have no place in the tree. Spelt in parts, so that this file passes its own lint.
MACHINE = re.compile("(?<![A-Za-z0-9_.-])/" + "(work|home/[a-z]+|tmp/guide|Users)/")
UNFINISHED = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b")
ASK_AT = 800


def git(*args):
    return subprocess.run(["git", "-c", "safe.directory=*", "-C", ROOT, *args], capture_output=True, text=True).stdout


def tracked():
    out = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in out.split("\0") if name and os.path.isfile(os.path.join(ROOT, name))]


def changed():
    """C files that differ from the upstream branch; without one, from the commit before."""
    base = git("merge-base", "HEAD", "@{upstream}").strip() or git("rev-parse", "--verify", "-q", "HEAD~1").strip()
    names = set(git("ls-files", "--others", "--exclude-standard").split("\n"))
    names |= set(git("diff", "--name-only", base or "HEAD").split("\n"))
    return names


def check_text(name, data):
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield 1, "not UTF-8"
        return
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end"
    code = name.endswith((".c", ".h"))
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield number, "trailing white space"
        if MACHINE.search(line):
            yield number, "a path of one machine"
        if code and UNFINISHED.search(line):
            yield number, "an unfinished place"
        if code and re.match(r" {8}", line):
            yield number, "indented with spaces"


def main():
    files = tracked()
    complaints, lengths = [], []
    for name in files:
        base = os.path.basename(name)
        if os.path.splitext(base)[1] not in TEXT or "/corpus/" in name or base == "LICENSE":
            continue
        data = open(os.path.join(ROOT, name), "rb").read()
        if b"\0" in data:
            continue
        for number, what in check_text(name, data):
            complaints.append(f"{name}:{number}: {what}")
        if name.endswith((".c", ".h")):
            lengths.append((data.count(b"\n"), name))
    c_files = [name for name in files if name.endswith((".c", ".h"))]
    if "--all" not in sys.argv[1:]:
        recent = changed()
        c_files = [name for name in c_files if name in recent]
    for name in c_files:
        out = subprocess.run(["clang-format-14", "--dry-run", os.path.join(ROOT, name)], capture_output=True, text=True)
        bad = len(re.findall(r"code should be clang-formatted", out.stderr))
        if bad:
            complaints.append(f"{name}: {bad} places not as clang-format-14 has them (scripts/format)")
    for line in complaints:
        print(line)
    long_files = sorted((pair for pair in lengths if pair[0] > ASK_AT), reverse=True)
    for lines, name in long_files:
        print(f"note: {name} has {lines} lines; above {ASK_AT}, ask whether it is one thing")
    print(f"style: {len(files)} files, {len(c_files)} formatted, {len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
