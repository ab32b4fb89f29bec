"""The page in a real browser, Chromium or Chrome, driven by its keys and its mouse; skipped where there is none.

The browser is spoken to over its own debugging protocol, so that nothing else has to be installed.
"""

import asyncio
import json
import shutil
import subprocess
import threading
import time

import aiohttp
import pytest
from spoken_to import speechless, spoken_to, write_users

from infra.settings import Settings
from ray_jobs.serving.page.answers import Answers
from ray_jobs.serving.page.server import PageServer
from ray_jobs.serving.page.settings import PageSettings

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium and no Chrome on the path")
READY = "document.querySelector('#lists')?.matches(':not(.busy)') && document.querySelectorAll('#after li').length > 0"


class Registry:
    def newest(self):
        return "m/1"

    def load(self, version):
        return spoken_to()


@pytest.fixture
def address(tmp_path, monkeypatch):
    speechless(monkeypatch)
    settings = Settings(home=str(tmp_path / "home"))
    write_users(settings, "shop")
    answers = Answers(settings, PageSettings(), lambda name: Registry())
    monkeypatch.setattr(answers, "_datasets", lambda: ["shop"])
    server = PageServer(settings, PageSettings(), answers, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser(tmp_path):
    """Run a coroutine function with a `Tab`."""

    def run(steps):
        argv = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
        argv += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900", "about:blank"]
        process = subprocess.Popen([BROWSER, *argv], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(_with_tab(tmp_path / "profile" / "DevToolsActivePort", steps))
        finally:
            process.terminate()
            process.wait(20)

    return run


async def _with_tab(note, steps):
    end = time.monotonic() + 60
    while not note.exists() or "\n" not in note.read_text():
        assert time.monotonic() < end, "the browser does not start"
        await asyncio.sleep(0.1)
    port = note.read_text().split()[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as found:
            pages = [page for page in await found.json(content_type=None) if page["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Tab(socket)
            await tab.send("Runtime.enable")
            await tab.send("Log.enable")
            await steps(tab)
            assert tab.problems == []


class Tab:
    """A page of the browser; `problems` has errors of its scripts and what its policy refused."""

    def __init__(self, socket):
        self._socket, self._number, self.problems = socket, 0, []

    async def send(self, method, **params):
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive(timeout=60)).data)
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(message["params"]["exceptionDetails"])
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.problems.append(message["params"]["entry"]["text"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    async def read(self, expression):
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression):
        end = time.monotonic() + 30
        while not await self.read(f"Boolean({expression})"):
            assert time.monotonic() < end, (expression, await self.read("document.body.innerText"))
            await asyncio.sleep(0.05)

    async def open(self, address):
        await self.send("Page.navigate", url="about:blank")
        await self.send("Page.navigate", url=address)
        await self.until(READY)

    async def key(self, name, code, text=""):
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, **extra)

    async def click(self, selector):
        element = self.element(selector)
        await self.read(f"{element}.scrollIntoView({{block: 'center'}})")
        middle = "(box => [box.x + box.width / 2, box.y + box.height / 2])"
        x, y = await self.read(f"{middle}({element}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def titles(self, name):
        return await self.read(f"[...document.querySelectorAll('#{name} li')].map(row => row.children[1].innerText)")

    async def text(self, selector):
        return await self.read(f"{self.element(selector)}.innerText")

    @staticmethod
    def element(selector):
        return f"document.querySelector({json.dumps(selector)})"


def test_a_person_types_moves_the_slider_and_sees_why(address, browser):
    async def steps(tab):
        await tab.open(address)
        before = await tab.titles("before")
        assert before == await tab.titles("after")
        assert len(before) == 10
        assert "m/1 · popularity, 48 items" in await tab.text("#version")
        assert await tab.read("document.querySelector('#user').value") == "u1"
        assert "Prefers number 2. Avoids wood" in await tab.text("#known")

        await tab.click("#say")
        await tab.send("Input.insertText", text="Something quiet, but no lamp, and no elephants")
        await tab.until("document.querySelector('#said .none')")
        assert await tab.titles("before") == before
        after = await tab.titles("after")
        assert after[:3] == ["Quiet Kettle 4", "Quiet Kettle 12", "Quiet Kettle 20"]
        assert "More of “quiet”, less of “lamp”." in await tab.text("#said")
        assert "Nothing here matches “elephants”; that part changes nothing." in await tab.text("#said")
        assert await tab.text("#after li .why") == "because: quiet"
        assert await tab.text("#after li mark") == "Quiet"
        assert await tab.text("#after li:nth-child(3) .moved") == "new"
        assert await tab.text("#after-share") == "8 wanted, 2 unwanted of 10"
        assert await tab.text("#before-share") == "4 wanted, 6 unwanted of 10"

        await tab.click("#strength")
        await tab.key("Home", 36)
        await tab.until(f"{READY} && document.querySelector('#strength-said').innerText === 'not at all'")
        await tab.until("document.querySelector('#said').innerText.includes('both lists')")
        assert await tab.titles("after") == before
        await tab.key("End", 35)
        await tab.until("document.querySelectorAll('#after mark:not(.against)').length === 8")
        assert "strength=2" in await tab.read("location.hash")

    browser(steps)


def test_a_history_is_put_together_with_the_keyboard(address, browser):
    async def steps(tab):
        await tab.open(address)
        await tab.click("#clear")
        await tab.until(f"{READY} && document.querySelectorAll('#before li')[0].innerText.includes('Quiet Lamp 0')")
        await tab.click("#search")
        await tab.send("Input.insertText", text="quiet lamp 0")
        await tab.until("document.querySelector('#found button')")
        await tab.key("Enter", 13, "\r")
        await tab.until("document.querySelectorAll('#history li').length === 1")
        await tab.until("document.querySelectorAll('#before li')[0].innerText.includes('Compact Lamp 1')")
        assert "items=i00" in await tab.read("location.hash")
        await tab.click("#history button")
        await tab.until("document.querySelectorAll('#before li')[0].innerText.includes('Quiet Lamp 0')")

    browser(steps)


def test_an_address_opens_what_was_seen_and_narrow_screens_scroll_down_only(address, browser):
    async def steps(tab):
        await tab.open(f"{address}#dataset=shop&user=u3&say=Avoids%20quiet&strength=1.5")
        assert await tab.read("document.querySelector('#user').value") == "u3"
        assert await tab.read("document.querySelector('#say').value") == "Avoids quiet"
        assert "1.5 times as much" in await tab.text("#strength-said")
        await tab.until("document.querySelectorAll('#before mark.against').length > 0")
        assert not any("Quiet" in title for title in await tab.titles("after"))
        for width in (1280, 700, 380):
            metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            await tab.send("Emulation.setDeviceMetricsOverride", **metrics)
            assert await tab.read("document.documentElement.scrollWidth") <= width
        fields = "[...document.querySelectorAll('input, select, textarea')]"
        assert await tab.read(f"{fields}.filter(field => !field.labels.length && !field.ariaLabel).length") == 0

    browser(steps)


def test_what_goes_wrong_is_said_on_the_page(address, browser):
    async def steps(tab):
        await tab.open(f"{address}#dataset=shop&user=nobody")
        await tab.read("state.dataset = 'shop'; state.strength = 99; update(); true")
        await tab.until("!document.querySelector('#trouble').hidden")
        assert "strength" in await tab.text("#trouble")
        tab.problems.clear()  # the browser logs the status 422

    browser(steps)
