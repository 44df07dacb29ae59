"""Files, whole or not at all; records; the disk's room; caches that several processes tidy."""

import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankwise import files
from rankwise.errors import RunError, SpaceError
from rankwise.files import publish_folder, read_record, require_space, write_record, write_text
from rankwise.records import Facts, Job, Plan
from tests import builders

# -- files and folders, whole or not at all ------------------------------------------------------


def test_a_written_file_holds_the_text_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_text(path, "größer\n")
    assert path.read_text(encoding="utf-8") == "größer\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("dies_in", ["fsync", "replace"])
def test_a_writer_that_dies_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "old")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die) if dies_in == "fsync" else monkeypatch.setattr(Path, "replace", die)
    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_writer_killed_half_way_leaves_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from rankwise.store import write_text\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_text(Path(sys.argv[1]), 'new' * 100_000)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "adapter") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text("1")
        assert not (tmp_path / "adapter").exists()
    assert (tmp_path / "adapter" / "deep" / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter").stat().st_mode & 0o777 == 0o755


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with publish_folder(tmp_path / "adapter") as folder:
            (folder / name).write_text("1")
    assert [p.name for p in (tmp_path / "adapter").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_whose_writer_fails_leaves_everything_as_it_was(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "old").write_text("1")
    with pytest.raises(KeyboardInterrupt), publish_folder(tmp_path / "adapter") as folder:
        (folder / "new").write_text("half")
        raise KeyboardInterrupt
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == (["adapter", "adapter/old"] if there else [])


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old").write_text("1")
    moves: list[Path] = []
    real = Path.replace

    def second_move_fails(self: Path, target: Path) -> Path:
        moves.append(self)
        if len(moves) == 2:
            raise OSError("no")
        return real(self, target)

    with pytest.raises(OSError, match="no"), publish_folder(tmp_path / "adapter") as folder:
        (folder / "new").write_text("1")
        monkeypatch.setattr(Path, "replace", second_move_fails)
    assert len(moves) == 3
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["adapter", "adapter/old"]


def test_hashes_follow_content_and_place(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("1")
    (tmp_path / "a").write_text("1")
    hashes = files.hash_folder(tmp_path)
    assert list(hashes) == ["a", "b/x"] and hashes["a"] == hashes["b/x"] == files.hash_file(tmp_path / "a")
    assert files.folder_bytes(tmp_path) == 2


# -- disk ----------------------------------------------------------------------------------------


def test_too_small_a_disk_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    asked: list[Path] = []
    monkeypatch.setattr(files.shutil, "disk_usage", lambda p: asked.append(p) or usage(9, 9, 1_500_000))
    with pytest.raises(SpaceError) as caught:
        require_space(tmp_path / "runs" / "not-yet", 2_000_000_000, "this run")
    assert "2,000 MB needed" in caught.value.what and "2 MB free" in caught.value.what and "--out" in caught.value.fix
    assert asked == [tmp_path] and caught.value.exit_code == 1
    require_space(tmp_path / "runs", 1_500_000, "this run")


# -- records -------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = builders.plan()
    write_record(tmp_path / "plan.json", plan)
    assert read_record(tmp_path / "plan.json", Plan) == plan


def test_a_record_of_a_later_version_says_to_upgrade(tmp_path: Path) -> None:
    content = builders.facts().model_dump(mode="json") | {"version": 2, "new": 1}
    (tmp_path / "facts.json").write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        read_record(tmp_path / "facts.json", Facts)
    assert "was written by a newer rankwise (Facts version 2, this one reads 1)" in caught.value.what
    assert caught.value.fix == "upgrade rankwise"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is damaged"),
        (b'{"version": 1', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[1]", "is not a valid Job"),
        (b'{"version": 1, "goal": "dance"}', "is not a valid Job: goal"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_record(tmp_path / "x.json", Job)
    assert f"{tmp_path / 'x.json'} {why}" in caught.value.what


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"plan\.json does not exist"):
        read_record(tmp_path / "plan.json", Plan)


def test_the_cache_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKWISE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert files.cache_folder() == Path("/x/rankwise")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "rankwise"
    monkeypatch.setenv("RANKWISE_CACHE", "/y")
    assert files.cache_folder() == Path("/y")


def test_a_cache_keeps_what_was_used_last_while_others_tidy_it_too(tmp_path: Path) -> None:
    def make_and_tidy(worker: int) -> None:
        for number in range(100):
            folder = tmp_path / f"{worker}-{number}"
            folder.mkdir()
            (folder / "meta.json").touch()
            files.remove_oldest({meta.parent: meta for meta in tmp_path.glob("*/meta.json")}, 5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make_and_tidy, range(4)))
    left = sorted(tmp_path.iterdir())  # the clock of a file system is coarse: of equal times each may keep another one
    assert 1 <= len(left) <= 5

    os.utime(left[0] / "meta.json", (2**31, 2**31))
    gone = files.remove_oldest({meta.parent: meta for meta in tmp_path.glob("*/meta.json")}, 1)
    assert len(gone) == len(left) - 1 and list(tmp_path.iterdir()) == left[:1]
