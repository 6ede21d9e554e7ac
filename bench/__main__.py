"""`python -m bench [NAME…] [--quick]`: runs benchmarks, writes bench/results/NAME.json and docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
import time

from bench.benchmark import benchmark
from bench.results import FOLDER, LONG, ORDER, PAGE, Result, page
from bench.worker import Worker

NAMES = ", ".join((*ORDER, *LONG))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {NAMES}. Default: all but {', '.join(LONG)}")
    parser.add_argument(
        "--quick", action="store_true", help="few images and rounds; the numbers are too rough to rely on"
    )
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.names) - {*ORDER, *LONG}):
        parser.error(f"unknown benchmark {', '.join(unknown)}; use {NAMES}")
    for name in args.names or ORDER:
        start = time.perf_counter()
        with Worker(benchmark, name) as run:
            result: Result = run(args.quick)
        result.save()
        print(f"{name}: {time.perf_counter() - start:.0f} s, in {FOLDER / name}.json", flush=True)
        for heading, figures in result.tables.items():
            for figure in figures:
                target = f"  target {figure.target}: {'met' if figure.met else 'MISSED'}" if figure.has_target else ""
                print(f"  {f'{heading}: ' if heading else ''}{figure.case}: {figure.column}: {figure}{target}")
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
