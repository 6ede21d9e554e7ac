"""The list of indexes: each has its number of images and its recall."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

from tests.browser.page import open_page, wait_for_results

LONG_NAME = "photographs-of-the-town-archive-1890-to-1975"
PERFECT = "images 100 %, changed images 100 %, texts 100 %"


def figures(**means: float) -> list[dict[str, object]]:
    """Recall@10 by kind of queries, and a lower recall@100."""
    return [
        {"queries": queries.replace("_", " "), "k": k, "mean": mean / (1 if k == 10 else 2), "worst": 0.5}
        for queries, mean in means.items()
        for k in (10, 100)
    ]


RECALLS = {
    LONG_NAME: figures(images=1.0, changed_images=0.9999, texts=0.9936),
    "few": [],
    "rounded": figures(images=0.29, texts=0.58),
}


def test_the_list_has_the_recall_of_each_index(page: Page) -> None:
    def indexes(route: Route) -> None:
        (photos,) = [info for info in route.fetch().json()["indexes"] if info["index"] == "photos"]
        others = [{**photos, "index": name, "recall": recall} for name, recall in RECALLS.items()]
        route.fulfill(json={"indexes": [photos, *others], "problems": {}})

    page.route("**/v1/indexes", indexes)
    open_page(page, "/?index=photos")
    assert page.locator("#index option").all_text_contents() == [
        "photos · 136 · recall 100 %",
        f"{LONG_NAME} · 136 · recall 99.3 %",
        "few · 136",
        "rounded · 136 · recall 29 %",
    ]
    heading = "Recall: the share of the 10 nearest images that a search finds. Searches for "
    list_ = page.get_by_role("combobox", name="Index")
    expect(list_).to_have_attribute("title", heading + PERFECT)
    titles = page.locator("#index option").evaluate_all("options => options.map((option) => option.title)")
    assert titles == [
        heading + PERFECT,
        f"{heading}images 100 %, changed images 99.9 %, texts 99.3 %",
        "",
        f"{heading}images 29 %, texts 58 %",
    ]
    list_.select_option(label="few · 136")
    expect(list_).to_have_attribute("title", "")
    wait_for_results(page)
