"""What fingers do on a phone: tap, drag, pinch, swipe; and whether they hit what they aim at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Locator, Page, TimeoutError, expect

from tests.browser.test_gestures import TILES, names, opened, shown
from tests.browser.test_looks import VIEWS

WIDTH, HEIGHT = 390, 844
FINGER = 44
"""Pixels (WCAG 2.2, 2.5.5)."""
STEPS = 6
View = tuple[float, float, float]
"""The point in the middle of the map's canvas, and the zoom."""
MARGIN, STRETCH = 48, 1.8
"""As in map.js."""
MISSES = """(finger) => {
  const aims = document.querySelector("dialog[open], details.menu[open] .sheet") || document.body;
  const reach = finger / 2 - 1;
  const ways = [[0, 0], [0, reach], [0, -reach], [reach, 0], [-reach, 0]];
  // A badge does what the image under it does; text runs on beside a link in it.
  const excused = ".twins, .skip, .unseen, a.brand, dd a";
  const missed = [];
  for (const aim of aims.querySelectorAll("a, button, summary, select, label, input:not(label input)")) {
    if (aim.matches(excused) || !aim.checkVisibility({ visibilityProperty: true })) continue;
    const box = aim.getBoundingClientRect();
    const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    if (x < reach || x > innerWidth - reach || y < reach || y > innerHeight - reach) continue;
    const hits = (across, down) => {
      const hit = document.elementFromPoint(x + across, y + down);
      return aim.contains(hit) || hit?.closest("label, .tile:has(> .twins)")?.contains(aim);
    };
    if (!hits(0, 0)) continue; // under something else, which is looked at itself
    // A value among others in a text is as wide as its word.
    const wanted = ways.filter(([across]) => !(across && aim.matches("dd .plain")));
    const short = wanted.filter(([across, down]) => !hits(across, down));
    if (short.length) missed.push(`${aim.outerHTML.slice(0, 90)} ${Math.round(box.width)}x${Math.round(box.height)}`);
  }
  return missed;
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
    """Fingers on a screen, each at (x, y) in pixels of the page."""

    session: CDPSession

    def _send(self, kind: str, *at: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(at)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drag(self, *ways: tuple[tuple[float, float], tuple[float, float]]) -> None:
        """Puts a finger down for each way from one point to another, moves them all, and lifts them one by one."""
        for count in range(len(ways)):
            self._send("touchStart", *(start for start, _ in ways[: count + 1]))
        for step in range(1, STEPS + 1):
            part = step / STEPS
            self._send("touchMove", *((x + (u - x) * part, y + (v - y) * part) for (x, y), (u, v) in ways))
        for left in reversed(range(len(ways))):
            self._send("touchEnd", *(end for _, end in ways[:left]))


@pytest.fixture
def fingers(page: Page) -> Fingers:
    return Fingers(page.context.new_cdp_session(page))


@dataclass(frozen=True)
class Plane:
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

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """Where on the screen the point (x, y) of the map is."""
        return spot((x, y), self.box, self.view)

    def settles(self, point: tuple[float, float], at: tuple[float, float], *, zoom: float, near: float) -> None:
        """Waits until that point of the map is at that place of the screen, within `near` pixels. The address tells of
        views on the way there, too, where the page is slow."""
        box, there, wide = self.box, pytest.approx(at, abs=near), pytest.approx(zoom, rel=0.02)
        with suppress(TimeoutError):
            self.page.wait_for_url(
                lambda address: view(address)[2] == wide and spot(point, box, view(address)) == there
            )
        assert self.view[2] == wide
        assert self.spot(*point) == there


def view(address: str) -> View:
    x, y, zoom = map(float, parse_qs(urlparse(address).query)["at"][0].split(","))
    return x, y, zoom


def spot(point: tuple[float, float], box: tuple[float, float, float, float], view: View) -> tuple[float, float]:
    """Where on the screen a point of the map is, whose canvas is at `box`."""
    (x, y), (left, top, width, height), (middle_x, middle_y, zoom) = point, box, view
    wide, high = width - 2 * MARGIN, height - 2 * MARGIN
    wide, high = min(wide, high * STRETCH) * zoom, min(high, wide * STRETCH) * zoom
    return left + width / 2 + (x - middle_x) * wide, top + height / 2 + (y - middle_y) * high


@pytest.fixture
def plane(page: Page) -> Plane:
    page.goto("/?index=photos&view=map&at=0.5,0.5,3")
    expect(page.locator("#status")).to_contain_text("near each other")
    return Plane(page)


def test_a_finger_on_the_map_takes_along_what_is_under_it(page: Page, plane: Plane, fingers: Fingers) -> None:
    x, y = plane.spot(0.5, 0.5)
    fingers.drag(((x, y), (x + 90, y - 60)))
    plane.settles((0.5, 0.5), (x + 90, y - 60), zoom=3, near=1)
    assert plane.view[2] == 3
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("spread", [2.5, 0.5])
def test_two_fingers_on_the_map_zoom_it_and_keep_what_is_under_them(
    page: Page, plane: Plane, fingers: Fingers, spread: float
) -> None:
    (x, y), away, shift = plane.spot(0.52, 0.48), 40.0, 30.0
    ways = (
        ((x - away, y), (x + shift - away * spread, y)),
        ((x + away, y), (x + shift + away * spread, y)),
    )
    fingers.drag(*ways)
    plane.settles((0.52, 0.48), (x + shift, y), zoom=3 * spread, near=3)
    assert page.evaluate("visualViewport.scale") == 1
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_tap_on_the_map_opens_the_image_under_it(page: Page, plane: Plane) -> None:
    points = page.evaluate("fetch('/v1/map?index=photos').then((answer) => answer.json())")["points"]

    def room(one: dict[str, float]) -> float:
        others = (point for point in points if point is not one)
        return float(min(max(abs(other["x"] - one["x"]), abs(other["y"] - one["y"])) for other in others))

    lone = max(points, key=room)
    page.goto(f"/?index=photos&view=map&at={lone['x']:.4f},{lone['y']:.4f},8")
    expect(page.locator("#status")).to_contain_text("near each other")
    page.touchscreen.tap(*plane.spot(lone["x"], lone["y"]))
    page.wait_for_url(re.compile(f"open={lone['id']}"))
    # The tap's click must not go to a button of what has opened under the finger.
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    assert f"open={lone['id']}" in page.url
    assert "part=" not in page.url


@pytest.fixture
def stage(page: Page) -> Locator:
    """The first result of a search, large."""
    opened(page, "/?index=photos&q=a+giraffe")
    page.locator(f"{TILES} .open").first.tap()
    expect(page.locator(".frame.there")).to_be_visible()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    return page.locator(".stage")


def across(stage: Locator, left: float, down: float = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """The way of a finger from the middle of the image, so many pixels."""
    box = stage.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return (x, y), (x - left, y + down)


def test_a_swipe_leads_to_the_next_image_and_back_and_not_beyond_the_first(
    page: Page, stage: Locator, fingers: Fingers
) -> None:
    first, second, third = names(page)[:3]
    name = page.locator("#detail-name")
    for way, then in ((120, second), (120, third), (-120, second), (-120, first)):
        fingers.drag(across(stage, way))
        expect(name).to_have_text(then)
    fingers.drag(across(stage, -120))
    fingers.drag(across(stage, 40))
    fingers.drag(across(stage, 70, down=60))
    fingers.drag(across(stage, 120))
    expect(name).to_have_text(second)
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_two_fingers_on_an_image_are_no_swipe(page: Page, stage: Locator, fingers: Fingers) -> None:
    first = names(page)[0]
    (x, y), _ = across(stage, 0)
    fingers.drag(((x, y - 40), (x - 120, y - 40)), ((x, y + 40), (x - 120, y + 40)))
    assert page.locator("#detail-name").inner_text() == first


def test_a_finger_moves_a_page_that_is_enlarged_and_not_to_the_next_image(
    page: Page, stage: Locator, fingers: Fingers
) -> None:
    first = names(page)[0]
    fingers.session.send("Emulation.setPageScaleFactor", {"pageScaleFactor": 2})
    page.wait_for_function("visualViewport.scale > 1.9")
    fingers.drag(((300, 200), (180, 200)))
    assert page.locator("#detail-name").inner_text() == first


def test_an_image_is_pushed_down_to_close_it_but_not_where_that_scrolls(
    page: Page, stage: Locator, fingers: Fingers
) -> None:
    dialog = page.get_by_role("dialog")
    dialog.evaluate("dialog => dialog.scrollTo(0, 100)")
    fingers.drag(((200, 60), (200, 230)))
    expect(dialog).to_be_visible()
    page.wait_for_function("document.getElementById('detail').scrollTop === 0")
    fingers.drag(((200, 60), (200, 230)))
    expect(dialog).to_be_hidden()
    page.wait_for_url(lambda address: "open=" not in address)


def test_a_tap_does_what_a_click_does(page: Page) -> None:
    opened(page, "/?index=photos&q=an+animal")
    name = names(page)[1]
    page.locator(f"{TILES} .open").nth(1).tap()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h2")).to_have_text(name)
    dialog.get_by_role("button", name="More like this").tap()
    expect(dialog).to_be_hidden()
    expect(page.locator("#chips .chip")).to_have_count(2)
    page.get_by_label("Remove this").tap()
    expect(page.locator("#chips .chip")).to_have_count(0)
    shown(page)
    page.locator("#tools summary").first.tap()
    with page.expect_response(lambda answer: "$contains" in (answer.request.post_data or "")):
        page.locator(".menu[open] .value").first.tap()
    assert list(json.loads(parse_qs(urlparse(page.url).query)["where"][0])) == ["labels"]
    page.touchscreen.tap(WIDTH / 2, 200)
    page.get_by_role("link", name="Map").tap()
    expect(page.locator("#status")).to_contain_text("near each other")


def test_a_tap_beside_a_list_of_values_closes_it_and_opens_nothing(page: Page) -> None:
    opened(page, "/?index=photos&q=an+animal")
    page.locator("#tools summary").first.tap()
    expect(page.locator(".menu[open]")).to_have_count(1)
    page.touchscreen.tap(WIDTH / 2, 260)
    expect(page.locator(".menu[open]")).to_have_count(0)
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert "open=" not in page.url


@pytest.mark.parametrize("view", VIEWS)
def test_fingers_hit_what_they_aim_at(page: Page, view: str) -> None:
    VIEWS[view](page)
    assert page.evaluate(MISSES, FINGER) == []
    assert page.evaluate("innerWidth") == WIDTH, "the browser has made the page smaller to get all of it on the screen"


def test_a_phone_s_keyboard_is_not_called_before_a_person_asks_for_it(page: Page) -> None:
    opened(page, "/?index=photos")
    expect(page.locator("#text")).not_to_be_focused()
