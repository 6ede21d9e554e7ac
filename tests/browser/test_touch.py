"""Tests of the page on a phone: tap, drag, pinch and swipe, and the size of touch targets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Locator, Page, TimeoutError, expect

from tests.browser.page import TILES, names, open_page, wait_for_results
from tests.browser.views import VIEWS

WIDTH, HEIGHT = 390, 844
TARGET_PIXELS = 44
"""The size of a touch target (WCAG 2.2, 2.5.5)."""
STEPS = 6
View = tuple[float, float, float]
"""The point in the middle of the map's canvas, and the zoom."""
MARGIN, STRETCH = 48, 1.8
"""As in viewport.js."""
SMALL_TARGETS = """(size) => {
  const root = document.querySelector("dialog[open], details.menu[open] .panel") || document.body;
  const reach = size / 2 - 1;
  const offsets = [[0, 0], [0, reach], [0, -reach], [reach, 0], [-reach, 0]];
  // A badge and the image under it do the same. A link in a text is as high as its line.
  const exempt = ".duplicates, .skip, .visually-hidden, a.brand, dd a";
  const small = [];
  for (const target of root.querySelectorAll("a, button, summary, select, label, input:not(label input)")) {
    if (target.matches(exempt) || !target.checkVisibility({ visibilityProperty: true })) continue;
    const box = target.getBoundingClientRect();
    const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    if (x < reach || x > innerWidth - reach || y < reach || y > innerHeight - reach) continue;
    const hits = (right, down) => {
      const hit = document.elementFromPoint(x + right, y + down);
      return target.contains(hit) || hit?.closest("label, .tile:has(> .duplicates)")?.contains(target);
    };
    if (!hits(0, 0)) continue; // under another control, which is checked itself
    // A value in a list of values is as wide as its text.
    const points = offsets.filter(([right]) => !(right && target.matches("dd .link")));
    const misses = points.filter(([right, down]) => !hits(right, down));
    const name = target.outerHTML.slice(0, 90);
    if (misses.length) small.push(`${name} ${Math.round(box.width)}x${Math.round(box.height)}`);
  }
  return small;
}"""


@pytest.fixture
def context(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """A phone."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
        reduced_motion="reduce",
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@dataclass(frozen=True)
class Fingers:
    """Fingers on the screen, each at (x, y) in pixels of the page."""

    session: CDPSession

    def _send(self, kind: str, *positions: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(positions)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drag(self, *strokes: tuple[tuple[float, float], tuple[float, float]]) -> None:
        """Puts a finger down for each stroke, moves all fingers along their strokes, and lifts one after the other."""
        for count in range(len(strokes)):
            self._send("touchStart", *(start for start, _ in strokes[: count + 1]))
        for step in range(1, STEPS + 1):
            share = step / STEPS
            self._send("touchMove", *((x + (u - x) * share, y + (v - y) * share) for (x, y), (u, v) in strokes))
        for remaining in reversed(range(len(strokes))):
            self._send("touchEnd", *(end for _, end in strokes[:remaining]))


@pytest.fixture
def fingers(page: Page) -> Fingers:
    return Fingers(page.context.new_cdp_session(page))


@dataclass(frozen=True)
class MapView:
    """The map as it is on the screen."""

    page: Page

    @property
    def box(self) -> tuple[float, float, float, float]:
        box = self.page.locator("#map canvas").bounding_box()
        assert box
        return box["x"], box["y"], box["width"], box["height"]

    @property
    def view(self) -> View:
        return view(self.page.url)

    def position(self, x: float, y: float) -> tuple[float, float]:
        """The position of the point (x, y) of the map on the screen."""
        return position((x, y), self.box, self.view)

    def wait_for(self, point: tuple[float, float], at: tuple[float, float], *, zoom: float, tolerance: float) -> None:
        """Waits until a point of the map is at a position of the screen, within `tolerance` pixels. On a slow page, the
        address has views in between, too."""
        box, expected, near_zoom = self.box, pytest.approx(at, abs=tolerance), pytest.approx(zoom, rel=0.02)
        with suppress(TimeoutError):
            self.page.wait_for_url(
                lambda address: view(address)[2] == near_zoom and position(point, box, view(address)) == expected
            )
        assert self.view[2] == near_zoom
        assert self.position(*point) == expected


def view(address: str) -> View:
    x, y, zoom = map(float, parse_qs(urlparse(address).query)["at"][0].split(","))
    return x, y, zoom


def position(point: tuple[float, float], box: tuple[float, float, float, float], view: View) -> tuple[float, float]:
    """The position of a point of the map on the screen. `box` is that of the map's canvas."""
    (x, y), (left, top, width, height), (middle_x, middle_y, zoom) = point, box, view
    across, down = width - 2 * MARGIN, height - 2 * MARGIN
    across, down = min(across, down * STRETCH) * zoom, min(down, across * STRETCH) * zoom
    return left + width / 2 + (x - middle_x) * across, top + height / 2 + (y - middle_y) * down


@pytest.fixture
def map_view(page: Page) -> MapView:
    page.goto("/?index=photos&view=map&at=0.5,0.5,3")
    expect(page.locator("#status")).to_contain_text("near each other")
    return MapView(page)


def test_a_finger_drags_the_map(page: Page, map_view: MapView, fingers: Fingers) -> None:
    x, y = map_view.position(0.5, 0.5)
    fingers.drag(((x, y), (x + 90, y - 60)))
    map_view.wait_for((0.5, 0.5), (x + 90, y - 60), zoom=3, tolerance=1)
    assert map_view.view[2] == 3
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("spread", [2.5, 0.5])
def test_two_fingers_zoom_the_map_at_their_position(
    page: Page, map_view: MapView, fingers: Fingers, spread: float
) -> None:
    (x, y), distance, shift = map_view.position(0.52, 0.48), 40.0, 30.0
    strokes = (
        ((x - distance, y), (x + shift - distance * spread, y)),
        ((x + distance, y), (x + shift + distance * spread, y)),
    )
    fingers.drag(*strokes)
    map_view.wait_for((0.52, 0.48), (x + shift, y), zoom=3 * spread, tolerance=3)
    assert page.evaluate("visualViewport.scale") == 1
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_tap_on_the_map_opens_the_image_under_it(page: Page, map_view: MapView) -> None:
    points = page.evaluate("fetch('/v1/map?index=photos').then((response) => response.json())")["points"]

    def distance_to_nearest(point: dict[str, float]) -> float:
        others = (other for other in points if other is not point)
        return float(min(max(abs(other["x"] - point["x"]), abs(other["y"] - point["y"])) for other in others))

    isolated = max(points, key=distance_to_nearest)
    page.goto(f"/?index=photos&view=map&at={isolated['x']:.4f},{isolated['y']:.4f},8")
    expect(page.locator("#status")).to_contain_text("near each other")
    page.touchscreen.tap(*map_view.position(isolated["x"], isolated["y"]))
    page.wait_for_url(re.compile(f"open={isolated['id']}"))
    # The tap must not also click a button of the detail view, which opens under the finger.
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    assert f"open={isolated['id']}" in page.url
    assert "part=" not in page.url


@pytest.fixture
def stage(page: Page) -> Locator:
    """The first result of a search in the detail view."""
    open_page(page, "/?index=photos&q=a+giraffe")
    page.locator(f"{TILES} .open").first.tap()
    expect(page.locator(".frame.loaded")).to_be_visible()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    return page.locator(".stage")


def swipe(stage: Locator, left: float, down: float = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """A stroke from the middle of the image, in pixels."""
    box = stage.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return (x, y), (x - left, y + down)


def test_a_swipe_opens_the_next_or_previous_image_but_none_before_the_first(
    page: Page, stage: Locator, fingers: Fingers
) -> None:
    first, second, third = names(page)[:3]
    name = page.locator("#detail-name")
    for left, expected in ((120, second), (120, third), (-120, second), (-120, first)):
        fingers.drag(swipe(stage, left))
        expect(name).to_have_text(expected)
    fingers.drag(swipe(stage, -120))
    fingers.drag(swipe(stage, 40))
    fingers.drag(swipe(stage, 70, down=60))
    fingers.drag(swipe(stage, 120))
    expect(name).to_have_text(second)
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_two_fingers_on_an_image_are_no_swipe(page: Page, stage: Locator, fingers: Fingers) -> None:
    first = names(page)[0]
    (x, y), _ = swipe(stage, 0)
    fingers.drag(((x, y - 40), (x - 120, y - 40)), ((x, y + 40), (x - 120, y + 40)))
    assert page.locator("#detail-name").inner_text() == first


def test_a_finger_on_a_zoomed_page_pans_it_and_opens_no_other_image(
    page: Page, stage: Locator, fingers: Fingers
) -> None:
    first = names(page)[0]
    fingers.session.send("Emulation.setPageScaleFactor", {"pageScaleFactor": 2})
    page.wait_for_function("visualViewport.scale > 1.9")
    fingers.drag(((300, 200), (180, 200)))
    assert page.locator("#detail-name").inner_text() == first


def test_a_swipe_down_closes_the_image_but_not_on_a_scrolled_page(page: Page, stage: Locator, fingers: Fingers) -> None:
    dialog = page.get_by_role("dialog")
    dialog.evaluate("dialog => dialog.scrollTo(0, 100)")
    fingers.drag(((200, 60), (200, 230)))
    expect(dialog).to_be_visible()
    page.wait_for_function("document.getElementById('detail').scrollTop === 0")
    fingers.drag(((200, 60), (200, 230)))
    expect(dialog).to_be_hidden()
    page.wait_for_url(lambda address: "open=" not in address)


def test_a_tap_does_what_a_click_does(page: Page) -> None:
    open_page(page, "/?index=photos&q=an+animal")
    name = names(page)[1]
    page.locator(f"{TILES} .open").nth(1).tap()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h2")).to_have_text(name)
    dialog.get_by_role("button", name="More like this").tap()
    expect(dialog).to_be_hidden()
    expect(page.locator("#chips .chip")).to_have_count(2)
    page.get_by_label("Remove this").tap()
    expect(page.locator("#chips .chip")).to_have_count(0)
    wait_for_results(page)
    page.locator("#filters summary").first.tap()
    with page.expect_response(lambda response: "$contains" in (response.request.post_data or "")):
        page.locator(".menu[open] .value").first.tap()
    assert list(json.loads(parse_qs(urlparse(page.url).query)["where"][0])) == ["labels"]
    page.touchscreen.tap(WIDTH / 2, 200)
    page.get_by_role("link", name="Map").tap()
    expect(page.locator("#status")).to_contain_text("near each other")


def test_a_tap_outside_a_list_of_values_only_closes_it(page: Page) -> None:
    open_page(page, "/?index=photos&q=an+animal")
    page.locator("#filters summary").first.tap()
    expect(page.locator(".menu[open]")).to_have_count(1)
    page.touchscreen.tap(WIDTH / 2, 260)
    expect(page.locator(".menu[open]")).to_have_count(0)
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert "open=" not in page.url


@pytest.mark.parametrize("view", VIEWS)
def test_touch_targets_are_large_enough(page: Page, view: str) -> None:
    VIEWS[view](page)
    assert page.evaluate(SMALL_TARGETS, TARGET_PIXELS) == []
    assert page.evaluate("innerWidth") == WIDTH, "the browser has scaled the page down to fit all of it on the screen"


def test_a_phone_does_not_open_its_keyboard_by_itself(page: Page) -> None:
    open_page(page, "/?index=photos")
    expect(page.locator("#text")).not_to_be_focused()
