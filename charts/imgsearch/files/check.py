"""The check of `helm test`: it asks the search server from inside the cluster if it is ready, and lists its indexes.

It runs in the searcher's image with the standard library only. SEARCHER_URL is the server's address. If the server
needs an API key, the check sees only that it is ready, because this program has no key.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

PATIENCE_SECONDS = 60
"""Time for a pod to become ready, or for a NetworkPolicy to include this pod."""


def ask(path: str) -> tuple[int, Any]:
    """Status and JSON of the answer. Raises OSError without an answer."""
    try:
        with urllib.request.urlopen(os.environ["SEARCHER_URL"] + path, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def wait_until_ready() -> Any:
    """The answer of /readyz when it is 200. Ends the program if that takes too long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            status, said = ask("/readyz")
            if status == 200:
                return said
            reason = f"it answers {status}: {said.get('detail', said)}"
        except (OSError, ValueError) as error:
            reason = f"it does not answer: {error}"
        if time.monotonic() > end:
            sys.exit(f"the search server at {os.environ['SEARCHER_URL']} is not ready: {reason}")
        time.sleep(1)


def main() -> None:
    print("ready:", json.dumps(wait_until_ready()))
    status, said = ask("/v1/indexes")
    if status == 401:
        print("the search server needs an API key; its indexes are not checked")
        return
    if status != 200:
        sys.exit(f"/v1/indexes answers {status}: {said}")
    print("indexes:", json.dumps(said))
    for index in said["indexes"]:
        print(f"index {index['index']}: run {index['run']}, {index['images']} images")


if __name__ == "__main__":
    main()
