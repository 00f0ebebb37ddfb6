"""Prints the commands under a heading of README.md, to be run as a newcomer would.

    python .ci/readme_commands.py Quickstart

Only the first block of shell commands under the heading counts. Fetching the
repository is left out: what runs this already stands in a copy of it.
"""

import re
import sys
from pathlib import Path

FETCHING = ("git clone", "cd ")


def commands(readme: str, heading: str) -> str:
    section = re.search(
        rf"^#+ {re.escape(heading)}\s*$(.*?)(?=^#+ |\Z)", _outside(readme), re.M | re.S
    )
    if section is None:
        raise SystemExit(f"README.md has no heading '{heading}'; rename it here too.")
    block = re.search(r"^```(?:sh|bash|console)\n(.*?)^```", section[1], re.M | re.S)
    if block is None:
        raise SystemExit(f"README.md has no ```sh block under '{heading}'.")
    lines = block[1].replace("\0", "#").splitlines()
    return "\n".join(x for x in lines if not x.strip().startswith(FETCHING))


def _outside(readme: str) -> str:
    # A comment in a shell block looks like a heading: hide its sign for the search.
    return re.sub(
        r"^```.*?^```", lambda m: m[0].replace("#", "\0"), readme, flags=re.M | re.S
    )


if __name__ == "__main__":
    print(commands(Path("README.md").read_text(), sys.argv[1]))
