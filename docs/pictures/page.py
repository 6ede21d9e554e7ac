"""Makes docs/pictures/page.jpg, the search page in the README, from a real index: `python -m docs.pictures.page`.

It needs the system's Chromium, and port 8000."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from docs.pictures.demo import URL, temporary_workspace

PICTURE = Path(__file__).with_suffix(".jpg")
QUERY = "a cat"
FREE_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "retina.jpg",
    "rocket.jpg",
)
"""The photos whose licence, by scikit-image's documentation, is CC0 or the public domain."""


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with temporary_workspace(FREE_PHOTOS) as workspace:
        workspace.run("run-pipeline", "photos", "--local", "--model", "local-dir:model")
        with workspace.serving(), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 760}, reduced_motion="reduce")
            page.goto(f"{URL}/?{urlencode({'q': QUERY})}")
            page.wait_for_load_state("networkidle")
            page.reload()  # the first search warms the model up
            page.wait_for_function("[...document.querySelectorAll('#results img')].every((image) => image.complete)")
            page.locator("#results img.there").first.wait_for()
            page.wait_for_load_state("networkidle")
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=PICTURE, type="jpeg", quality=85)
            browser.close()


if __name__ == "__main__":
    main()
