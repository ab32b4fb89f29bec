"""A table of all cases, or of those named: ``python -m tests.cases [csv_bom ...]``; status 1 where one is not right."""

import sys

from tests.cases.right import RIGHT, judge
from tests.cases.runs import CASES


def main(names: list[str]) -> None:
    """Run the cases and print one line for each as it finishes."""
    if not CASES.is_dir():
        sys.exit(f"there is no {CASES}; nothing to run")
    unknown = set(names) - set(RIGHT)
    if unknown:
        sys.exit(f"no case {', '.join(sorted(unknown))}; there are {', '.join(sorted(RIGHT))}")
    wrong = 0
    print("| case | right behaviour | what it gives now | ok |\n|---|---|---|---|", flush=True)
    for name in names or sorted(RIGHT):
        verdict = judge(name)
        wrong += not verdict.ok
        gives = verdict.gives.replace("|", "/").replace("\n", " ")
        print(f"| {name} | {verdict.right} | {gives} | {'yes' if verdict.ok else 'NO'} |", flush=True)
    print(f"\n{wrong} not right")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
