"""Every view of the page at three sizes, light and dark: its accessibility, stability, requests and errors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Response, Route, expect

from tests.browser.conftest import Console
from tests.browser.page import TILES, open_page, search, wait_for_results
from tests.browser.views import VIEWS

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "wide": (1600, 1000)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MAX_BYTES = 150_000
MAX_SHIFT = 0.05
AXE = {"resultTypes": ["violations"]}
SHIFTS = """() => new Promise((resolve) => {
  let total = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) total += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(total), 0);
})"""
LOAD = """() => {
  const figures = { first_contentful_paint_ms: 0, largest_contentful_paint_ms: 0, total_blocking_ms: 0 };
  const watch = (type, record) =>
    new PerformanceObserver((list) => list.getEntries().forEach(record)).observe({ type, buffered: true });
  watch("paint", (entry) => {
    if (entry.name === "first-contentful-paint") figures.first_contentful_paint_ms = entry.startTime;
  });
  watch("largest-contentful-paint", (entry) => (figures.largest_contentful_paint_ms = entry.startTime));
  watch("longtask", (entry) => (figures.total_blocking_ms += Math.max(0, entry.duration - 50)));
  window.figures = () => figures;
}"""
PAINT = """() => {
  const input = document.getElementById("text");
  const grid = document.getElementById("results");
  window.painted = new Promise((resolve) => {
    let start;
    input.addEventListener("input", () => (start = performance.now()));
    const check = () => {
      const image = grid.querySelector("img.loaded");
      if (start && image && !grid.classList.contains("stale") && image.dataset.old === undefined)
        requestAnimationFrame(() => resolve(performance.now() - start));
      else requestAnimationFrame(check);
    };
    for (const image of grid.querySelectorAll("img")) image.dataset.old = "";
    check();
  });
}"""


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=AXE).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:160]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits_is_readable_and_has_no_serious_violation(
    browser: Browser, url: str, screenshots: Path, size: str
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        has_touch=size != "wide",
        is_mobile=size == "phone",
        reduced_motion="reduce",
        bypass_csp=True,  # axe is a script that is put into the page
    )
    console = Console(context)
    page = context.new_page()
    found = {}
    for name, view in VIEWS.items():
        view(page)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=screenshots / f"{size}-{scheme}-{name}.png")
            found[f"{name} {scheme}"] = violations(page)
            # A phone's innerWidth would grow with the page.
            overflow = page.evaluate("document.scrollingElement.scrollWidth") - width
            assert overflow <= 0, f"{name} is {overflow} pixels wider than the screen"
    context.close()
    assert found == {f"{name} {scheme}": [] for name in VIEWS for scheme in SCHEMES}
    assert console.errors == []


@pytest.mark.parametrize("size", SIZES)
def test_no_image_moves_during_a_session(page: Page, size: str, record_property: Callable[..., None]) -> None:
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    open_page(page, "/?index=photos")
    search(page, "a giraffe")
    for _ in range(6):
        page.mouse.wheel(0, 900)
        page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    page.wait_for_load_state("networkidle")
    search(page, " in a zoo")
    page.locator(f"{TILES} .open").first.click()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(page.locator("#chips .chip")).to_have_count(2)
    wait_for_results(page)
    page.locator("#filters summary").first.click()
    with page.expect_response("**/v1/search"):
        page.locator(".menu[open] .value").first.click()
    wait_for_results(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear filters").click()
    wait_for_results(page)
    page.get_by_role("link", name="Map").click()
    expect(page.locator("#status")).to_contain_text("near each other")
    page.get_by_label("Zoom in").click()
    page.get_by_role("link", name="Images", exact=True).click()
    wait_for_results(page)
    page.wait_for_load_state("networkidle")
    shift = page.evaluate(SHIFTS)
    record_property("layout_shift", shift)
    print(f"layout shift {shift:.4f} on a {size} screen")
    assert shift < MAX_SHIFT


def test_the_page_is_small_and_has_an_etag(page: Page) -> None:
    sizes: dict[str, int] = {}
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    open_page(page, "/?index=photos")
    for response in responses:
        path = urlparse(response.url).path
        if path == "/" or path.startswith("/page/"):
            sizes[path] = len(response.body())
    assert {"/", "/page/main.js", "/page/page.css"} <= set(sizes)
    assert sum(sizes.values()) < MAX_BYTES
    print(f"{sum(sizes.values()):,} bytes in {len(sizes)} files")
    etag = page.request.get("/page/main.js").headers["etag"]
    assert page.request.get("/page/main.js", headers={"If-None-Match": etag}).status == 304


def test_the_page_starts_with_few_requests_all_to_its_own_searcher(
    page: Page, url: str, record_property: Callable[..., None]
) -> None:
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.add_init_script(f"({LOAD})()")
    open_page(page, "/?index=photos")
    page.wait_for_load_state("networkidle")
    urls = [request.url for request in requests if not request.url.startswith(("data:", "blob:"))]
    assert [address for address in urls if not address.startswith(url)] == []
    # The document names all modules: the browser loads them at once, not one after the other.
    document = page.request.get("/").text()
    modules = [urlparse(address).path[1:] for address in urls if "/page/" in address]
    assert len(modules) == len(set(modules))
    assert [module for module in modules if f'"{module}"' not in document] == []
    # One search is without a cursor. The next page has a cursor: it loads before the user scrolls to it.
    counts = Counter(urlparse(request.url).path for request in requests if "cursor" not in (request.post_data or ""))
    assert [counts[f"/v1/{path}"] for path in ("indexes", "facets", "search")] == [1, 1, 1]
    figures = page.evaluate("window.figures()")
    for name, value in figures.items():
        record_property(name, value)
    print(", ".join(f"{name} {value:.0f}" for name, value in figures.items()))
    assert figures["largest_contentful_paint_ms"] > 0


def test_a_pause_starts_one_search_and_the_time_to_its_first_image_is_measured(
    page: Page, record_property: Callable[..., None]
) -> None:
    open_page(page, "/?index=photos")
    bodies: list[str] = []
    page.on("request", lambda request: bodies.append(request.post_data or "") if "/v1/s" in request.url else None)
    page.evaluate(PAINT)
    # All in one turn of the browser's loop: no pause is between the letters, however slow the machine is.
    page.locator("#text").evaluate(
        """(input) => {
          for (const letter of "pizza") {
            input.value += letter;
            input.dispatchEvent(new InputEvent("input", { bubbles: true }));
          }
        }"""
    )
    milliseconds = page.evaluate("window.painted")
    assert milliseconds > 0
    assert [json.loads(body)["parts"][0]["text"] for body in bodies if "cursor" not in body] == ["pizza"]
    record_property("first_result_ms", milliseconds)
    print(f"first result painted {milliseconds:.0f} ms after the last keystroke")


@pytest.fixture
def fail_searches(page: Page, console: Console) -> Callable[..., None]:
    """Lets the next searches fail with a problem."""
    console.allows_http_errors = True

    def fail(status: int, detail: str, *, path: str = "**/v1/search", times: int = 1, **headers: str) -> None:
        body = json.dumps({"type": "about:blank", "title": "", "status": status, "detail": detail})

        def respond(route: Route) -> None:
            route.fulfill(status=status, body=body, headers=headers, content_type="application/problem+json")

        page.route(path, respond, times=times)

    return fail


@pytest.mark.parametrize(
    ("status", "detail", "headline"),
    [
        (429, "too many searches wait for the model; try again in a moment", "Too many requests"),
        (503, "the store does not answer", "Temporarily unavailable"),
    ],
)
def test_a_temporary_error_is_shown_and_retried(
    page: Page, fail_searches: Callable[..., None], status: int, detail: str, headline: str
) -> None:
    fail_searches(status, detail, **{"Retry-After": "20"})
    page.clock.install()
    page.goto("/?index=photos&q=a+giraffe")
    expect(page.locator("#notice h2")).to_have_text(headline)
    expect(page.locator("#notice")).to_contain_text(detail)
    page.clock.run_for(20_000)
    wait_for_results(page)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_permanent_error_waits_for_the_user(page: Page, fail_searches: Callable[..., None]) -> None:
    fail_searches(500, "something is wrong here, not with the request")
    page.goto("/?index=photos&q=a+giraffe")
    expect(page.locator("#notice")).to_contain_text("something is wrong here")
    page.get_by_role("button", name="Try again").click()
    wait_for_results(page)


def test_results_stay_when_their_run_is_deleted_and_can_be_searched_again(page: Page, console: Console) -> None:
    gone = {"type": "about:blank", "title": "Gone", "status": 410, "detail": "the run was deleted"}

    def respond(route: Route) -> None:
        if "cursor" in (route.request.post_data or ""):
            route.fulfill(status=410, json=gone)
        else:
            route.continue_()

    console.allows_http_errors = True
    page.route("**/v1/search", respond)
    open_page(page, "/?index=photos&q=people")
    page.mouse.wheel(0, 9000)
    expect(page.locator("#end")).to_contain_text("A newer version")
    assert page.locator(TILES).count() == 40
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Search again").click()
    expect(page.locator("#end")).to_be_hidden()
    expect(page.locator(TILES)).not_to_have_count(40)


def test_the_page_shows_that_it_is_offline_and_continues_when_online(page: Page, console: Console) -> None:
    console.allows_http_errors = True
    open_page(page, "/?index=photos")
    page.context.set_offline(True)
    page.locator("#text").fill("a giraffe")
    expect(page.locator("#notice h2")).to_have_text("No connection")
    expect(page.locator("#notice")).to_contain_text("offline")
    page.context.set_offline(False)
    wait_for_results(page)


def test_without_an_index_the_page_shows_the_command_that_creates_one(page: Page) -> None:
    page.route("**/v1/indexes", lambda route: route.fulfill(json={"indexes": [], "problems": {}}), times=1)
    page.goto("/")
    expect(page.locator("#notice")).to_contain_text("controller run-pipeline")
    page.get_by_role("button", name="Check again").click()
    wait_for_results(page)


def test_the_page_waits_while_the_model_loads(page: Page) -> None:
    loading = {"indexes": [], "problems": {"photos": "its model is being loaded"}}
    page.route("**/v1/indexes", lambda route: route.fulfill(json=loading), times=1)
    page.clock.install()
    page.goto("/?q=a+giraffe")
    expect(page.locator("#notice")).to_contain_text("the model is loaded")
    page.clock.run_for(2_000)
    wait_for_results(page)
