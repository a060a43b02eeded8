"""Runs every example and writes what it prints into examples/README.md.

python examples/readme.py                # all, about a quarter of an hour on two cores
python examples/readme.py transfer.py    # some
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MARKED = re.compile(r"(<!-- (\S+\.py)(.*?): begin -->\n).*?(<!-- end -->)", re.DOTALL)


def figures(name, arguments):
    """What an example prints, as a block of Markdown."""
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
    return "\n".join(["```text", f"$ {' '.join(command)}", *lines, "```", ""])


def main():
    page, wanted = HERE / "README.md", sys.argv[1:]
    for begin, name, arguments, _ in MARKED.findall(page.read_text()):
        if name in wanted or not wanted:
            shown = figures(name, arguments)
            # Written after each, so that a failure does not lose the ones before.
            text, place = (
                page.read_text(),
                re.compile(re.escape(begin) + r".*?(?=<!-- end -->)", re.S),
            )
            page.write_text(place.sub(lambda _, new=begin + shown: new, text))


if __name__ == "__main__":
    main()
