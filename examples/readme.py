"""Runs every example and writes what it prints into examples/README.md and README.md.

python examples/readme.py                # all, half an hour on two cores
python examples/readme.py transfer.py    # some
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MARKED = re.compile(r"(<!-- (\S+\.py)(.*?): begin -->\n).*?(<!-- end -->)", re.DOTALL)


def figures(name, arguments):
    """What an example prints: its table in Markdown, or all of it as a block of text."""
    command = ["python", f"examples/{name}", *arguments.split()]
    print(" ".join(command), flush=True)
    ran = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in ran.stdout.strip().splitlines()]
    if "--markdown" in command:
        first = next(i for i, line in enumerate(lines) if line.startswith("| "))
        return "\n".join([*lines[first:], "", f"`{' '.join(command)}`", ""])
    return "\n".join(["```text", f"$ {' '.join(command)}", *lines, "```", ""])


def fill(page, wanted):
    """Runs what a page shows between its marks, and writes it there."""
    for begin, name, arguments, _ in MARKED.findall(page.read_text()):
        if name in wanted or not wanted:
            shown = figures(name, arguments)
            # Written after each, so that a failure does not lose the ones before.
            place = re.compile(re.escape(begin) + r".*?(?=<!-- end -->)", re.DOTALL)
            text = place.sub(lambda _, new=begin + shown: new, page.read_text())
            page.write_text(text)


def main():
    for page in (HERE / "README.md", HERE.parent / "README.md"):
        fill(page, sys.argv[1:])


if __name__ == "__main__":
    main()
