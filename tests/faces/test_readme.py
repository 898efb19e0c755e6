"""The first minutes with readside, as the README tells them, on embedded servers of their own."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_example_runs_as_it_stands_there(desk):
    (program,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    desk.write("shop.py", program)
    desk.start("run", "shop:app").until("relay streaming; user following")
    said = desk.run_program()
    assert said.out == "User(id=1, name='Ada', email='ada@example.com')\n", said.err
    assert desk.do("status", "shop:app").code == 0
    assert "nothing is parked" in desk.do("dead-letters", "list", "shop:app").out
    assert "1 documents removed" in desk.do("reset", "shop:app", "user", "--yes").out
    assert "user is forgotten" in desk.do("forget", "shop:app", "user", "--yes").out
