"""`python -m bench [NAME…] [--quick]`: measures, writes bench/results/NAME.json, and makes docs/benchmarks.md anew."""

from __future__ import annotations

import argparse
import sys
import time

from bench.benchmark import benchmark
from bench.contender import Contender
from bench.results import FOLDER, ORDER, PAGE, Result, page


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ORDER)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="few images and rounds: shows that it works, not how fast")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.names) - set(ORDER)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(ORDER)}")
    for name in args.names or ORDER:
        start = time.perf_counter()
        with Contender(benchmark, name) as run:
            result: Result = run(args.quick)
        result.save()
        print(f"{name}: {time.perf_counter() - start:.0f} s, in {FOLDER / name}.json", flush=True)
        for heading, figures in result.tables.items():
            for figure in figures:
                target = f"  target {figure.target}: {'met' if figure.met else 'MISSED'}" if figure.has_target else ""
                print(f"  {f'{heading}: ' if heading else ''}{figure.case}: {figure.what}: {figure}{target}")
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
