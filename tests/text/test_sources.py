"""A file, a folder, a split of it or a dataset of the hub: which files hold the rows, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import huggingface_hub.constants
import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

from rankwise.errors import DataError
from rankwise.files import hash_file
from rankwise.text import sources
from rankwise.text.containers import read_records
from rankwise.text.formats import read_rows
from rankwise.text.probes import read_probes
from rankwise.text.sources import files_of, hash_source
from tests.datafiles import TALK, cache_dataset, said, write_rows

ROOT = Path(__file__).parents[2]


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": name}) + "\n")
    return [folder / name for name in names]


def fault(source: Path) -> DataError:
    with pytest.raises(DataError) as raised:
        files_of(source)
    error = raised.value
    assert error.expected and error.fix
    return error


def words(source: Path) -> list[str]:
    return [record.value["completion"] for record in read_records(source)]


# -- folders -----------------------------------------------------------------------------------


def test_a_file_is_itself_there_or_not(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.jsonl")
    assert files_of(path) == [path] and files_of(tmp_path / "nowhere.txt") == [tmp_path / "nowhere.txt"]


def test_a_folder_is_its_data_files_by_name(tmp_path: Path) -> None:
    shards = touch(tmp_path, "part-0.jsonl", "part-1.jsonl", "part-2.jsonl.gz")
    touch(tmp_path, ".part-3.jsonl", "README.md", "dataset_info.json", "state.json", "inner/part-4.jsonl", "notes.txt")
    assert files_of(tmp_path) == shards


def test_a_folder_without_data_files(tmp_path: Path) -> None:
    touch(tmp_path, "README.md", ".hidden.jsonl")
    error = fault(tmp_path)
    assert "no data files" in error.what and ".parquet" in error.expected and error.fix == "check the path"
    touch(tmp_path, "train/0.jsonl")
    assert f"'{tmp_path}:train'" in fault(tmp_path).fix


def test_a_folder_of_several_kinds_or_splits_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "kinds", "a.jsonl", "b.jsonl.gz", "c.csv")
    assert "several kinds: a.jsonl, c.csv" in fault(tmp_path / "kinds").what
    touch(tmp_path / "splits", "train-00000-of-00001.jsonl", "val.jsonl", "train_1.jsonl")
    error = fault(tmp_path / "splits")
    assert "several splits: train-00000-of-00001.jsonl, val.jsonl" in error.what
    assert error.fix == f"name the split: '{tmp_path / 'splits'}:train'"
    assert [p.name for p in files_of(Path(f"{tmp_path / 'splits'}:train"))] == [
        "train-00000-of-00001.jsonl",
        "train_1.jsonl",
    ]
    touch(tmp_path / "one", "train.jsonl", "training-2.jsonl", "alpaca.jsonl")
    assert len(files_of(tmp_path / "one")) == 3


def test_a_name_that_no_file_can_have_is_refused() -> None:
    path = Path("x" * 300 + ".jsonl")
    assert files_of(path) == [path]
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_records(path)


def test_a_folder_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root opens every folder")
    (tmp_path / "shut").mkdir(mode=0)
    assert "cannot be read" in str(fault(tmp_path / "shut"))


SPLITS = [
    ("train", ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], ["data/test-0.parquet"]),
    ("train", ["data/train-00000-of-00001-6a55b6b7df1d7ce8.parquet"], ["data/train_sft-00000-of-00001.parquet"]),
    ("train_sft", ["data/train_sft-00000-of-00001.parquet"], ["data/train_gen-00000-of-00001.parquet"]),
    ("train", ["train.jsonl"], ["test.jsonl", "validation.jsonl"]),
    ("train", ["train_1.json", "train_2.json"], ["trainer.json"]),
    ("train", ["train/0000.parquet", "train/0001.parquet"], ["test/0000.parquet"]),
    ("train", ["train-v1.1.json"], ["dev-v1.1.json"]),
    ("train", ["alpaca_train.jsonl"], ["alpaca_test.jsonl"]),
    ("validation", ["dev.csv"], ["train.csv"]),
    ("test", ["eval-00000-of-00001.parquet"], ["train-00000-of-00001.parquet"]),
    ("validation", ["validation.jsonl"], ["dev.jsonl", "train.jsonl"]),
]


@pytest.mark.parametrize(("split", "meant", "others"), SPLITS)
def test_a_split_is_found_by_the_hubs_names(tmp_path: Path, split: str, meant: list[str], others: list[str]) -> None:
    expected = touch(tmp_path, *meant)
    touch(tmp_path, *others)
    assert files_of(Path(f"{tmp_path}:{split}")) == expected


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    touch(tmp_path, "train_sft-00000-of-00001.jsonl", "train_gen-00000-of-00001.jsonl")
    error = fault(Path(f"{tmp_path}:train"))
    assert "no split 'train'" in error.what and "train_gen, train_sft" in error.what
    assert f"'{tmp_path}:train_gen'" in error.fix


def test_subsets_of_a_dataset_are_not_mixed(tmp_path: Path) -> None:
    touch(tmp_path, "en/train-0.jsonl", "fr/train-0.jsonl", "en/test-0.jsonl")
    error = fault(Path(f"{tmp_path}:train"))
    assert "several folders: en, fr" in error.what and f"'{tmp_path / 'en'}:train'" in error.fix
    assert files_of(Path(f"{tmp_path / 'en'}:train")) == [tmp_path / "en" / "train-0.jsonl"]


def test_a_split_of_several_kinds_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train.jsonl", "train.csv")
    assert "several kinds" in fault(Path(f"{tmp_path}:train")).what


# -- hashes ------------------------------------------------------------------------------------


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.jsonl")
    assert hash_source(path) == hash_file(path)
    with pytest.raises(OSError):
        hash_source(tmp_path / "nowhere.jsonl")


def test_the_hash_of_a_folder_is_of_names_and_contents_and_of_nothing_else(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        touch(folder, "a.jsonl", "b.jsonl")
    touch(two, "README.md", ".hidden.jsonl")
    before = hash_source(one)
    assert hash_source(two) == before and hash_source(two, lambda path: "same") != before
    (two / "b.jsonl").rename(two / "c.jsonl")
    assert hash_source(two) != before
    (one / "b.jsonl").write_text('{"text": "new"}\n')
    assert hash_source(one) != before


# -- the hub -----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache that this process looks into, with no way out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    sources._listed.cache_clear()
    return tmp_path / "hub"


def test_a_dataset_is_read_from_the_hub_cache(hub: Path) -> None:
    files = {
        "README.md": b"# A dataset",
        "data/train-00000-of-00002.parquet": said("a", "b"),
        "data/train-00001-of-00002.parquet": said("c"),
        "data/test-00000-of-00001.parquet": said("d"),
        "org.py": b"raise SystemExit('never run')",
    }
    snapshot = cache_dataset(hub, "org/words", files)
    assert words(Path("org/words")) == ["a", "b", "c"] and words(Path("org/words:test")) == ["d"]
    records = read_records(Path("org/words"))
    assert [(record.path.relative_to(snapshot).name, record.line) for record in records][1:] == [
        ("train-00000-of-00002.parquet", 2),
        ("train-00001-of-00002.parquet", 1),
    ]
    assert read_rows(Path("org/words")).format == "prompt/completion"
    assert "no split 'validation'" in fault(Path("org/words:validation")).what
    assert hash_source(Path("org/words")) != hash_source(Path("org/words:test"))


def test_the_only_file_is_the_training_split_unless_it_names_another(hub: Path) -> None:
    cache_dataset(hub, "org/only", {"alpaca_data.json": said("a")})
    assert words(Path("org/only")) == ["a"]
    assert "no split 'test'" in fault(Path("org/only:test")).what
    cache_dataset(hub, "org/held", {"test.jsonl": said("a")})
    assert "no split 'train'" in fault(Path("org/held")).what and "'org/held:test'" in fault(Path("org/held")).fix


def test_probes_come_from_a_dataset_too(hub: Path) -> None:
    cache_dataset(hub, "org/probes", {"test.jsonl": [{"question": "2 + 2?", "answer": "4"}]})
    assert [probe.answer for probe in read_probes(Path("org/probes:test"))] == ["4"]
    cache_dataset(hub, "org/table", {"test.csv": b"question,answer\na,b\n"})
    with pytest.raises(DataError, match="probes are not read"):
        read_probes(Path("org/table:test"))


def test_a_dataset_of_a_script_has_no_files(hub: Path) -> None:
    cache_dataset(hub, "org/script", {"script.py": b"raise SystemExit('never run')"})
    error = fault(Path("org/script"))
    assert "no data files" in error.what and "scripts are not run" in error.fix


def test_offline_is_three_sentences(hub: Path) -> None:
    error = fault(Path("org/away:test"))
    assert error.what.startswith("org/away: it is not on this machine") and "HF_HUB_OFFLINE" in error.what
    assert "file or folder" in error.expected and "give their folder" in error.fix


def test_a_download_that_was_cut_is_not_taken_for_whole(hub: Path) -> None:
    snapshot = cache_dataset(hub, "org/cut", {"data/train-00000-of-00002.parquet": said("a")})
    tree = {f"data/train-0000{n}-of-00002.parquet": TreeCacheEntry(size=5, blob_id="0" * 40) for n in range(2)}
    write_tree_cache(str(hub / "datasets--org--cut"), snapshot.name, tree)
    assert "not on this machine" in fault(Path("org/cut")).what


def test_what_is_here_goes_before_the_hub(hub: Path) -> None:
    cache_dataset(hub, "org/both", {"train.jsonl": said("hub")})
    write_rows(Path("org/both/train.jsonl"), said("here"))
    assert words(Path("org/both")) == ["here"]
    assert files_of(Path("org/bothe")) == [Path("org/bothe")]
    with pytest.raises(DataError, match=r"no such file\n.*did you mean 'org/both'"):
        read_records(Path("org/bothe"))


FILES = {
    "README.md": b"# Words",
    "words.py": b"raise SystemExit('never run')",
    "data/train-00000-of-00002.jsonl": b'{"text": "a"}\n',
    "data/train-00001-of-00002.jsonl": b'{"text": "b"}\n',
    "data/test-00000-of-00001.jsonl": b'{"text": "c"}\n',
    "en/part[1].jsonl": b'{"text": "d"}\n',
}
READ = """
import sys
from pathlib import Path
from rankwise.errors import DataError
from rankwise.text.containers import read_records
for name in sys.argv[1:]:
    try:
        print([record.value["text"] for record in read_records(Path(name))])
    except DataError as error:
        print(error.what)
"""


class Hub(BaseHTTPRequestHandler):
    """What of the hub's protocol a download asks for: a repository's files, their sizes, and one of them."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        commit, path = "c" * 40, unquote(self.path.partition("?")[0])
        headers = {"X-Repo-Commit": commit, "ETag": '"0"'}
        status, content = 200, b""
        if "/org/gated" in path or "/org/words" not in path:
            status = 403 if "/org/gated" in path else 404
            headers["X-Error-Code"] = "GatedRepo" if status == 403 else "RepoNotFound"
        elif "/resolve/" in path:
            name = path.partition(f"/resolve/{commit}/")[2]
            content = FILES[name]
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            self.asked.append(name)
        elif "/tree/" in path:
            files = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in FILES.items()]
            content = json.dumps(files).encode()
        else:
            siblings = [{"rfilename": name} for name in FILES]
            content = json.dumps({"id": "org/words", "sha": commit, "siblings": siblings}).encode()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content if body else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_only_the_files_of_the_split_are_downloaded_and_then_read_offline(tmp_path: Path) -> None:
    Hub.asked.clear()
    names = ["org/words", "org/words:en", "org/words:nothing", "org/gated", "org/unknown"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }

    def read(*names: str, **changes: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", READ, *names],
            cwd=tmp_path,
            env=environment | changes,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout.splitlines()

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        first, english, missing, gated, unknown = read(*names, HF_ENDPOINT=endpoint)
        server.shutdown()
    assert first == "['a', 'b']" and english == "['d']"
    assert "no split 'nothing'; its 4 data files are of part[1], test, train" in missing
    assert "it is gated" in gated and "neither a file or folder here nor a dataset" in unknown
    assert set(Hub.asked) == {*(name for name in FILES if "train" in name), "en/part[1].jsonl"}
    offline, held_out = read("org/words", "org/words:test", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    assert offline == first and "org/words: it is not on this machine" in held_out


def test_hf_home_is_honoured_in_a_process_of_its_own(tmp_path: Path) -> None:
    cache_dataset(tmp_path / "home" / "hub", "org/talks", {"data/train-00000-of-00001.parquet": [{"messages": TALK}]})
    code = (
        "import sys; from pathlib import Path; from rankwise.text.formats import read_rows\n"
        "early = {'pyarrow', 'huggingface_hub'} & {*sys.modules}\n"
        "rows = read_rows(Path('org/talks'))\n"
        "print(rows.format, len(rows.rows), early, {'torch', 'datasets', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "messages 1 set() set()" and done.stderr == ""


def test_a_configuration_of_a_dataset_is_named_before_its_split(hub: Path) -> None:
    files = {f"{config}/{split}.jsonl": said(config + split) for config in ("en", "fr") for split in ("train", "test")}
    cache_dataset(hub, "org/two", files)
    assert words(Path("org/two:fr/train")) == ["frtrain"] and words(Path("org/two:en/test")) == ["entest"]
    assert "name one: 'org/two:en/train'" in fault(Path("org/two")).fix
    assert "no data files" in fault(Path("org/two:de/train")).what


def test_a_revision_of_a_dataset_is_asked_for(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def answer(name: str, **options: object) -> str:
        asked.append((name, options["revision"]))
        return str(hub)

    hub.mkdir(exist_ok=True)
    write_rows(hub / "train.jsonl", said("old"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    assert words(Path("org/words@v1.2")) == ["old"] and asked == [("org/words", "v1.2")]
