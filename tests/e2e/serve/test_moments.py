"""Finding moments that look alike, and opening them."""

from look import Server, Windows, until


def test_moments_like_this_one_are_found_and_open(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v=0")
    page.keyboard.press("f")
    cards = page.locator(".moment")
    cards.first.wait_for()
    until(page, "document.querySelector('.moment img').naturalWidth > 0")
    name = cards.first.locator(".video-name").inner_text()
    time = cards.first.locator(".video-facts").inner_text().split()[0]
    cards.first.click()
    until(page, "name => document.querySelector('#name').textContent === name", name)
    until(page, "time => document.querySelector('#time').textContent.startsWith(time)", time)
