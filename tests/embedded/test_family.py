"""Whole trees of processes are ended, also those that still grow."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from readside.adapters.embedded import family
from readside.adapters.embedded.process import kill_tree

#: A shell below a shell below a shell, as fast as they can be made, and no deeper than this.
GROWING = 'grow() { [ "$1" -gt 0 ] && ( grow $(($1 - 1)) ); sleep 5; }; grow 100'


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="squatters are seen on Linux only")
@pytest.mark.parametrize("milliseconds", [5, 15, 30, 45, 60])
def test_a_tree_that_grows_while_it_is_ended_leaves_nobody(tmp_path, milliseconds):
    shell = Path(shutil.which("sh") or "sh").resolve()
    home, programs = tmp_path.resolve(), {shell.name, "sleep"}
    process = subprocess.Popen([shell, "-c", GROWING], cwd=home)
    try:
        time.sleep(milliseconds / 1000)
        kill_tree(process)
        assert not family.squatters(home, programs)
    finally:
        while left := family.squatters(home, programs):
            family.kill(left)
