"""The program of `helm test`: checks in the cluster that the search server is ready, and lists its indexes.

It runs in the searcher's image and uses only the standard library. SEARCHER_URL is the URL of the server. If the server
requires an API key, the program checks only that it is ready, because the program has no key.
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
    """Status and JSON of the response. Raises OSError without a response."""
    try:
        with urllib.request.urlopen(os.environ["SEARCHER_URL"] + path, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_ready() -> Any:
    """Returns the body of /readyz when its status is 200. Exits after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            status, body = ask("/readyz")
            if status == 200:
                return body
            reason = f"status {status}: {body.get('detail', body)}"
        except (OSError, ValueError) as error:
            reason = f"no response: {error}"
        if time.monotonic() > end:
            sys.exit(f"the search server at {os.environ['SEARCHER_URL']} is not ready: {reason}")
        time.sleep(1)


def main() -> None:
    print("ready:", json.dumps(wait_until_ready()))
    status, body = ask("/v1/indexes")
    if status == 401:
        print("the search server needs an API key; its indexes are not checked")
        return
    if status != 200:
        sys.exit(f"/v1/indexes returned {status}: {body}")
    print("indexes:", json.dumps(body))
    for index in body["indexes"]:
        print(f"index {index['index']}: run {index['run']}, {index['images']} images")


if __name__ == "__main__":
    main()
