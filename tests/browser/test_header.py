"""The header at every width of the window: no control overlaps another one, is cut, or leaves the window."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.page import open_page

WIDTHS = range(320, 1921, 20)
LONG_NAMES = ["photographs-of-the-town-archive-1890-to-1975", "products.2026-11.with-every-variant"]
FAULTS = """() => {
  const width = document.documentElement.clientWidth;
  const controls = "header :is(a, form, input:not([type=file]), select, button, label, kbd)";
  const boxes = [...document.querySelectorAll(controls)]
    .filter((control) => control.checkVisibility({ visibilityProperty: true }))
    .map((control) => ({ control, box: control.getBoundingClientRect(), name: control.outerHTML.split(">")[0] + ">" }));
  const faults = [];
  for (const [i, { control, box, name }] of boxes.entries()) {
    if (box.left < 0 || box.right > width || !box.width) faults.push(`${name} is at ${box.left} to ${box.right}`);
    const isCut = control.matches("a, form, button, label") && control.scrollWidth > control.clientWidth;
    if (isCut) faults.push(`${name} is cut`);
    for (const other of boxes.slice(i + 1)) {
      if (control.contains(other.control)) continue;
      const across = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
      const down = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
      if (across > 0.5 && down > 0.5) faults.push(`${name} overlaps ${other.name} by ${across} pixels`);
    }
  }
  return faults;
}"""


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "touch"])
@pytest.mark.parametrize("names", [[], LONG_NAMES], ids=["one index", "long index names"])
def test_no_control_of_the_header_overlaps_another_or_leaves_the_window(
    browser: Browser, url: str, names: list[str], touch: bool
) -> None:
    def indexes(route: Route) -> None:
        (photos,) = [info for info in route.fetch().json()["indexes"] if info["index"] == "photos"]
        route.fulfill(json={"indexes": [photos, *({**photos, "index": name} for name in names)], "problems": {}})

    context = browser.new_context(base_url=url, has_touch=touch, reduced_motion="reduce")
    page = context.new_page()
    page.route("**/v1/indexes", indexes)
    open_page(page, "/?index=photos")
    expect(page.locator("#index")).to_be_visible(visible=bool(names))
    faults = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 600})
        faults[width] = page.evaluate(FAULTS)
    context.close()
    assert {width: found for width, found in faults.items() if found} == {}
