"""The page of steps in a browser: what a reader does with it, and what it shows then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, expect, sync_playwright

from headgate import Recurrent
from headgate.inspection import Observation, observe, steps_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
STEPS, UNITS = 30, 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def observation() -> Observation:
    torch.manual_seed(3)
    module = Recurrent("lstm", 2, UNITS)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    weeks = np.datetime64("2020-01-05") + 7 * np.arange(STEPS)
    return replace(
        observe(module, torch.randn(STEPS, 1, 2)),
        series=np.sin(np.arange(STEPS) / 4)[None],
        prediction=np.sin(np.arange(STEPS) / 4 - 0.2)[None],
        time=(weeks,),
    )


class Opened:
    """A page in a window, with all that it complained of and asked for."""

    def __init__(self, browser: Browser, html: str, folder: Path, **options: object) -> None:
        self.file = folder / "steps.html"
        self.file.write_text(html, encoding="utf-8")
        self.page: Page = browser.new_page(**options)  # type: ignore[arg-type]
        self.page.set_default_timeout(5000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(self.file.as_uri())

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def gate(self, name: str) -> str:
        """The number under the valve of that name."""
        return self.page.locator(".valve", has_text=name).locator(".number").inner_text()

    def made(self, line: int) -> str:
        """What the numbers of an equation make."""
        return (
            self.page.locator(".equation").nth(line).locator("[data-s]").last.text_content() or ""
        )

    def go(self, *keys: str) -> None:
        self.page.focus("#step")
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture
def opened(browser: Browser, observation: Observation, tmp_path: Path) -> Iterator[Opened]:
    found = Opened(browser, steps_page(observation, unit=1), tmp_path)
    yield found
    assert found.said == []
    assert found.asked == [found.file.as_uri()]
    found.page.close()


def written(number: float) -> str:
    return f"{number:.3f}".replace("-", "−")


def shows(opened: Opened, observation: Observation, step: int, unit: int) -> None:
    """Valves, bars, states and equations hold what was recorded."""
    values = {k: v[0, step, unit] for k, v in observation.layers[0, 0].values.items()}
    assert opened.text("#where").startswith(f"Step {step + 1} of {STEPS}")
    for name, gate in (("f", "forget gate"), ("i", "input gate"), ("o", "output gate")):
        assert opened.gate(gate) == written(values[name])
    for line, name in enumerate(("i", "f", "g", "o", "c", "h")):
        assert opened.made(line).strip("()") == written(values[name])
    ends = opened.page.locator(".end .number").all_inner_texts()
    assert ends == [written(values["c"]), written(values["h"])]
    before = observation.layers[0, 0].values["c"][0, step - 1, unit] if step else 0.0
    assert opened.page.locator(".lane .number").first.inner_text() == written(before)


def test_keys_move_through_the_steps(opened: Opened, observation: Observation) -> None:
    shows(opened, observation, STEPS - 1, 1)
    for keys, step in [
        (("Home",), 0),
        (("ArrowRight", "ArrowRight"), 2),
        (("PageUp",), 12),
        (("ArrowLeft",), 11),
        (("PageDown",), 1),
        (("End", "ArrowRight"), STEPS - 1),
    ]:
        opened.go(*keys)
        shows(opened, observation, step, 1)
    opened.go("Home")
    assert opened.text("#where") == f"Step 1 of {STEPS} · 2020-01-05"
    assert opened.page.get_attribute("#step", "aria-valuetext") == opened.text("#where")


def test_valves_open_as_far_as_the_gates(opened: Opened, observation: Observation) -> None:
    opened.go("Home", "PageUp")
    share = opened.page.evaluate(
        """() => [...document.querySelectorAll(".valve")].map(valve => {
          valve.querySelectorAll("i").forEach(part => { part.style.transition = "none" });
          return valve.querySelector(".down").getBoundingClientRect().height /
            valve.querySelector(".up").getBoundingClientRect().height; })"""
    )
    values = observation.layers[0, 0].values
    assert share == pytest.approx([values[k][0, 10, 1] for k in "fio"], abs=0.02)


def test_bars_rise_and_fall_with_the_candidate(opened: Opened, observation: Observation) -> None:
    candidate = observation.layers[0, 0].values["g"][0, :, 1]
    for step in (int(candidate.argmax()), int(candidate.argmin())):
        opened.go("Home", *["ArrowRight"] * step)
        side, height = opened.page.evaluate(
            """() => { const bar = document.querySelector(".gauge i");
              return [bar.className, parseFloat(bar.style.height)]; }"""
        )
        assert side == ("negative" if candidate[step] < 0 else "")
        assert height == pytest.approx(50 * abs(candidate[step]), abs=0.01)


def test_another_unit(opened: Opened, observation: Observation) -> None:
    opened.go("Home", "PageUp")
    opened.page.select_option("#unit", "3")
    shows(opened, observation, 10, 3)
    assert opened.text("#module-title") == "Inside the module, unit 3"


def test_the_chain_leads_to_other_steps(opened: Opened, observation: Observation) -> None:
    opened.go("Home", "PageUp")
    current = opened.page.locator(".box[aria-current]")
    assert "2020-03-15" in current.inner_text()
    opened.page.locator(".box", has_text="t + 2").click()
    shows(opened, observation, 12, 1)
    assert "2020-03-29" in current.inner_text()
    opened.page.keyboard.press("Enter")
    shows(opened, observation, 14, 1)
    opened.go("Home")
    assert not opened.page.locator(".box", has_text="t − 1").is_visible()


def test_the_heat_map_leads_to_a_step_and_a_unit(opened: Opened, observation: Observation) -> None:
    opened.page.select_option("#heat-name", "c")
    box = opened.page.locator("#heat").bounding_box()
    assert box
    place = {"x": box["width"] * 7.5 / STEPS, "y": box["height"] * 2.5 / UNITS}
    opened.page.click("#heat", position=place)  # type: ignore[arg-type]
    shows(opened, observation, 7, 2)
    opened.page.click(".chart", position={"x": box["width"] * 20.5 / STEPS, "y": 20})
    shows(opened, observation, 20, 2)


def test_the_heat_map_has_the_colours_of_the_values(
    opened: Opened, observation: Observation
) -> None:
    opened.page.select_option("#heat-name", "f")
    pixel = opened.page.evaluate(
        """([step, unit]) => [...document.getElementById("heat").getContext("2d")
          .getImageData(step, unit, 1, 1).data]""",
        [5, 2],
    )
    opening = observation.layers[0, 0].values["f"][0, 5, 2]
    ends = [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)]
    channels = [np.interp(opening, np.linspace(0, 1, 5), each) for each in zip(*ends, strict=True)]
    assert pixel[:3] == pytest.approx(channels, abs=1.1)


def test_space_plays_and_pauses(opened: Opened) -> None:
    opened.go("Home", " ")
    expect(opened.page.locator("#where")).not_to_contain_text("Step 1 of")
    assert opened.text("#play") == "Pause"
    opened.page.keyboard.press(" ")
    assert opened.text("#play") == "Play"
    stopped = opened.text("#where")
    opened.page.wait_for_timeout(400)
    assert opened.text("#where") == stopped


def test_everything_is_reached_by_tab_and_seen_there(opened: Opened) -> None:
    reached = []
    for _ in range(12):
        opened.page.keyboard.press("Tab")
        place = opened.page.evaluate(
            """() => { const element = document.activeElement;
              return [element.id || element.className, getComputedStyle(element).outlineStyle]; }"""
        )
        reached.append(place[0])
        assert place[0] == "" or place[1] != "none"
    assert {"step", "play", "unit", "box", "heat-name"} <= set(reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("cell", ["lstm_layer_norm", "FGR"])
def test_no_window_is_too_narrow(
    browser: Browser, tmp_path: Path, cell: str, width: int, scheme: str
) -> None:
    html = steps_page(observe(Recurrent(cell, 9, 70), torch.randn(12, 1, 9)))
    size = {"width": width, "height": 700}
    opened = Opened(browser, html, tmp_path, viewport=size, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    back = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    assert opened.page.locator(".box:visible").count() >= 2
    assert opened.said == []
    opened.page.close()


def test_a_hostile_name_is_only_shown(
    browser: Browser, observation: Observation, tmp_path: Path
) -> None:
    evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    hostile = replace(
        observation,
        name=evil,
        ids=(evil,),
        input_names=(evil, "b"),
        time=(np.array([evil] * STEPS),),
    )
    opened = Opened(browser, steps_page(hostile, title=evil), tmp_path)
    opened.page.on("dialog", lambda dialog: opened.said.append(dialog.message))
    opened.go("Home")
    assert opened.text("h1") == evil
    assert opened.text("#where") == f"Step 1 of {STEPS} · {evil}"
    assert opened.page.locator("img").count() == 0
    assert opened.said == []
    assert opened.asked == [opened.file.as_uri()]
    opened.page.close()


def test_less_motion_where_it_is_asked_for(
    browser: Browser, observation: Observation, tmp_path: Path
) -> None:
    opened = Opened(browser, steps_page(observation), tmp_path, reduced_motion="reduce")
    moving = "getComputedStyle(document.querySelector('.plate')).transitionDuration"
    assert opened.page.evaluate(moving) == "0s"
    opened.page.close()


def test_without_a_script_the_page_says_what_is_missing(
    browser: Browser, observation: Observation, tmp_path: Path
) -> None:
    opened = Opened(browser, steps_page(observation), tmp_path, java_script_enabled=False)
    assert "needs JavaScript" in opened.text("body")
    assert opened.page.locator(".chart path").count() == 2
    opened.page.close()
