"""`controller search`: searches with a text, an image file, or both."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.cli.console import Terminal, add_output
from imgsearch.client import URL, Client, KeyRefused, Options, Term
from imgsearch.errors import ExitCode, UsageError
from imgsearch.settings import API_KEY_VARIABLE

HELP = "Search with a text, an image file, or both."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "query",
        nargs="+",
        metavar="TEXT|FILE",
        help='"a red bicycle", or ./photo.jpg. With several, results are similar to all of them',
    )
    parser.add_argument("-k", type=int, default=10, metavar="N", help="Number of results. Default: 10")
    parser.add_argument(
        "--filter", metavar="JSON", help="""Filter by metadata, for example '{"year": {"$gte": 2020}}'"""
    )
    parser.add_argument("--min-score", type=float, metavar="S", help="Minimum score of a result, from -1 to 1")
    parser.add_argument("--url", default=URL, help=f"URL of the searcher. Default: {URL}")
    parser.add_argument("--index", metavar="NAME", help="Name of the index. Needed where there are several")
    add_output(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    key = env.get(API_KEY_VARIABLE)  # not an option: other users of the machine can read those
    options: Options = {
        "k": args.k,
        "filter": None if args.filter is None else _filter(args.filter),
        "min_score": args.min_score,
        "index": args.index,
        "parts": [_term(word) for word in args.query],
    }
    with Client(args.url, key) as client:
        try:
            response = client.search(**options)
        except KeyRefused as error:
            raise UsageError(
                f"{args.url} rejects the API key in {API_KEY_VARIABLE} (401): ask its operator for a valid key"
                if key
                else f"{args.url} needs an API key (401): set {API_KEY_VARIABLE}"
            ) from error
    if args.output == "json":
        terminal.json(dataclasses.asdict(response))
    else:
        rows = [{"score": f"{result.score:.3f}", "image": result.uri} for result in response]
        terminal.rows(rows, output="table", empty="No image found")
    return ExitCode.DONE


def _term(word: str) -> Term:
    """An image file where a file has this name, otherwise a text. Raises UsageError for a path without a file."""
    file = Path(word).expanduser()
    if file.is_file():
        return {"image": file}
    if re.match(r"~|\.{0,2}/", word):
        raise UsageError(f"file {word} does not exist")
    return {"text": word}


def _filter(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"invalid --filter {text}: use a JSON object, for example '{{\"year\": 2020}}'")
    return value
