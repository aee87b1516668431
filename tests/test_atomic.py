"""write_atomically: the new content or the old, never half of one, and nothing beside it."""

from __future__ import annotations

import os
import threading

import pytest
from refusals import refused

from lowprec.atomic import write_atomically
from lowprec.errors import OutputError


def test_content_is_replaced(tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"second, longer", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_readers_never_see_a_half(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([number]) * 200_000 for number in (65, 66)]
    write_atomically(path, contents[0])
    done = threading.Event()
    torn = []

    def read() -> None:
        while not done.is_set():
            if path.read_bytes() not in contents:
                torn.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        write_atomically(path, contents[number % 2])
    done.set()
    reader.join()
    assert not torn


@pytest.mark.parametrize("name", ["none/file", "file/below"])
def test_wrong_folders_are_named(tmp_path, name):
    (tmp_path / "file").touch()
    with refused(OutputError, str(tmp_path)):
        write_atomically(tmp_path / name, b"")
    assert os.listdir(tmp_path) == ["file"]
