"""Mosaic and focal plane: what the pointer is on in one is marked in the other."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    stage.gather()
    page = open_page(url)
    expect(page.locator("#mosaic img")).to_be_visible()
    return page


def hover_picture(page, x: float, y: float) -> None:
    """Move to a place in the mosaic, in fractions from its upper left."""
    box = page.locator("#mosaic img").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [(0.5, 0.5, "R22_S11"), (0.1, 0.1, "R22_S20"), (0.9, 0.1, "R22_S22"), (0.1, 0.9, "R22_S00"), (0.9, 0.9, "R22_S02")],
)
def test_the_detector_under_the_pointer_in_the_mosaic_is_marked_in_the_plane(page, x, y, name):
    hover_picture(page, x, y)
    expect(page.locator("#plane")).to_have_attribute("data-detector", name)
    page.mouse.move(2, 2)
    expect(page.locator("#plane")).to_have_attribute("data-detector", "")


def test_it_is_still_the_right_one_after_zooming_and_dragging(page):
    hover_picture(page, 0.9, 0.1)
    page.mouse.wheel(0, -600)
    # The place under the pointer stays under it.
    hover_picture(page, 0.9, 0.1)
    expect(page.locator("#plane")).to_have_attribute("data-detector", "R22_S22")
    page.mouse.down()
    page.mouse.move(*(lambda b: (b["x"] + b["width"] / 2, b["y"] + b["height"] / 2))(box_of(page)))
    page.mouse.up()
    page.mouse.move(*(lambda b: (b["x"] + b["width"] / 2 + 1, b["y"] + b["height"] / 2))(box_of(page)))
    expect(page.locator("#plane")).to_have_attribute("data-detector", "R22_S22")


def box_of(page) -> dict[str, float]:
    box = page.locator("#mosaic").bounding_box()
    assert box is not None
    return box


def test_the_detector_under_the_pointer_in_the_plane_is_framed_in_the_mosaic(page):
    frame = page.locator("#mosaic .outline")
    expect(frame).to_be_hidden()
    plane = page.locator("#plane").bounding_box()
    assert plane is not None
    page.mouse.move(plane["x"] + plane["width"] / 2, plane["y"] + plane["height"] / 2)
    expect(page.locator("#plane")).to_have_attribute("data-detector", "R22_S11")
    expect(frame).to_be_visible()
    framed, image = frame.bounding_box(), page.locator("#mosaic img").bounding_box()
    assert framed is not None
    assert image is not None
    for start, size in (("x", "width"), ("y", "height")):
        centre = (framed[start] + framed[size] / 2 - image[start]) / image[size]
        assert centre == pytest.approx(0.5, abs=0.02)
        assert framed[size] == pytest.approx(image[size] / 3, rel=0.06)
    expect(page.locator(".tip")).to_contain_text(re.compile("R22_S11"))
