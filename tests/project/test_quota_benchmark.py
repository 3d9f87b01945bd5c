"""`python -m benchmarks.quota`, in small: it runs, it draws, and it shows what it is there to show."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.quota.__main__ import main
from benchmarks.quota.contenders import CONTENDERS


def test_only_this_limiter_is_never_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "quota.svg"
    main(["--requests", "3000", "--jobs", "1", "--plot", str(plot)])
    rows = {
        name: re.findall(r"[\d.,]+", line.removeprefix(f"  {name}"))
        for line in capsys.readouterr().out.splitlines()
        for name in CONTENDERS
        if line.startswith(f"  {name}")
    }
    assert rows.keys() == CONTENDERS.keys()
    refused, worst_minute, worst_hour = (int(cell.replace(",", "")) for cell in rows["do_images_async"][:3])
    assert (refused, worst_minute <= 250, worst_hour <= 5000) == (0, True, True)
    assert all(row[0] != "0" for name, row in rows.items() if name != "do_images_async")
    picture = ElementTree.parse(plot).getroot()  # noqa: S314 (we have drawn it)
    assert len(picture.findall("{http://www.w3.org/2000/svg}g")) == len(CONTENDERS)
