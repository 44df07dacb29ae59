"""What a job names as data -> the files to read: a file, a folder of shards, or a dataset of the Hugging Face hub.

`folder:split` and `org/name:split` take the files of one split, by the names that the hub gives them;
`org/name:config/split` those of one configuration, which has a folder of its own; `org/name@revision` is another
revision. Only data files are fetched, and nothing that a dataset brings is ever run.
"""

import difflib
import glob
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from rankwise.errors import DataError
from rankwise.files import hash_file
from rankwise.hub import dataset_files, dataset_id, snapshot, split_of
from rankwise.records import content_hash

KINDS = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
ENDINGS = (*KINDS, ".jsonl.gz", ".json.gz", ".csv.gz")
_DESCRIBING = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}  # of the datasets library
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_SHARD = re.compile(  # train, train-00000-of-00002, train-00000-of-00002-6a55b6b7df1d7ce8, train_1, train-part-1
    r"(?P<split>.+?)(?:[-._ ]?(?:part|shard|chunk)?[-._ ]?\d+(?:-of-\d+(?:-[0-9a-f]+)?)?)?", re.DOTALL
)


def ending_of(path: Path) -> str:
    """`.jsonl.gz` of `a.jsonl.gz`, `.csv` of `a.csv`, in small letters; empty where the name has none."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == ".gz" else last


def files_of(source: Path) -> list[Path]:
    """The files that hold the rows of `source`, sorted by name; they are of one kind and, in a folder, of one split.

    A file is itself, whether it is there or not: what is wrong with it is said where it is read.

    Raises:
        DataError: a folder without data files, of several kinds or several splits; a dataset that cannot be had, or
            that has no such split.
    """
    source = Path(source)
    try:
        if source.is_dir():
            return _of_folder(source)
        if source.exists():
            return [source]
    except OSError:
        return [source]
    name, split = split_of(source)
    if split and Path(name).is_dir():
        return _of_folders_split(source, Path(name), split)
    if dataset_id(source) and not _beside(source):
        return _of_dataset(source, name, split)
    return [source]


def hash_source(source: Path, hash_of: Callable[[Path], str] = hash_file) -> str:
    """sha256 of what `source` holds: of a file its bytes; of anything else the names and bytes of its data files.

    Raises:
        DataError: as `files_of`. OSError: a file that cannot be read.
    """
    files = files_of(source)
    if files == [source]:
        return hash_of(source)
    root = files[0].parent
    while not all(file.is_relative_to(root) for file in files):
        root = root.parent
    return content_hash({str(file.relative_to(root)): hash_of(file) for file in files})


def _beside(source: Path) -> bool:
    """Does the folder that would hold it hold something of nearly that name? Then it is a slip, not an id."""
    try:
        return bool(difflib.get_close_matches(source.name, [entry.name for entry in source.parent.iterdir()], n=1))
    except OSError:
        return False


def _of_folder(folder: Path) -> list[Path]:
    files = _data_files(folder, folder.iterdir)
    if not files:
        fix = "check the path"
        if _data_files(folder, lambda: folder.rglob("*")):
            fix = f"the folders in it have some: give one of them, or a split of all as '{folder}:train'"
        expected = f"files that end in {', '.join(ENDINGS)}"
        raise DataError(folder, None, "there are no data files in this folder", expected=expected, fix=fix)
    _require_one_kind(folder, files)
    _require_one_split(folder, files)
    return files


def _data_files(folder: Path, listed: Callable[[], Iterable[Path]]) -> list[Path]:
    try:
        return sorted(path for path in listed() if _is_data(path.relative_to(folder)) and path.is_file())
    except OSError as fault:
        raise DataError(folder, None, f"the folder cannot be read: {fault.strerror or fault}") from None


def _is_data(inside: Path) -> bool:
    """Has it a known ending? Hidden files and what the datasets library writes beside rows are left out."""
    hidden = any(part.startswith(".") for part in inside.parts)
    return ending_of(inside) in ENDINGS and inside.name not in _DESCRIBING and not hidden


def _require_one_kind(source: Path, files: list[Path]) -> None:
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(ending_of(file).removesuffix(".gz"), file)
    if len(first) > 1:
        raise DataError(
            source,
            None,
            f"there are data files of several kinds: {', '.join(path.name for path in first.values())}",
            expected="shards of one kind",
            fix="give the one file that is meant, or put the others into folders of their own",
        )


def _require_one_split(folder: Path, files: list[Path]) -> None:
    """Held-out shards beside training shards would be trained on without a word."""
    first: dict[str, Path] = {}
    for file in files:
        if (split := _SPLITS.get(_stated(file).lower())) is not None:
            first.setdefault(split, file)
    if len(first) > 1:
        raise DataError(
            folder,
            None,
            f"there are files of several splits: {', '.join(path.name for path in first.values())}",
            expected="files of one split",
            fix=f"name the split: '{folder}:{_stated(next(iter(first.values())))}'",
        )


def _stated(file: Path) -> str:
    """The split that a file's name states, without shard numbers: `train` of train-00000-of-00002.parquet."""
    found = _SHARD.fullmatch(_base(file))
    return found["split"] if found else _base(file)


def _base(file: Path) -> str:
    return file.name[: -len(ending_of(file))]


def _of_dataset(source: Path, name: str, split: str | None) -> list[Path]:
    """Of a dataset of the hub only the files of the split are downloaded, where a list tells which they are."""
    listed = _listed(name)
    if listed is None:
        root = snapshot(name, "dataset", wanted=[f"*{ending}" for ending in ENDINGS])
        found = _data_files(root, lambda: root.rglob("*"))
        return [root / path for path in _pick(source, [f.relative_to(root) for f in found], split, None)]
    picked = _pick(source, sorted(path for path in map(Path, listed) if _is_data(path)), split, None)
    root = snapshot(name, "dataset", wanted=[glob.escape(path.as_posix()) for path in picked])
    return [root / path for path in picked]


@cache
def _listed(name: str) -> list[str] | None:
    """Asked of the hub once a process, so that all that is read of a dataset is of one list."""
    return dataset_files(name)


def _of_folders_split(source: Path, root: Path, split: str) -> list[Path]:
    found = _data_files(root, lambda: root.rglob("*"))
    return [root / path for path in _pick(source, [f.relative_to(root) for f in found], split, root)]


def _pick(source: Path, files: list[Path], asked: str | None, root: Path | None) -> list[Path]:
    """The files of a split (of train, where none is asked for), by the first of these that finds some: named for it, or
    in a folder of its name (`train-00000-of-00002.*`, `train.*`, `train/*`); the same under another usual name (`val`
    for validation); one file whose name begins or ends with it; the only file, where no split was asked for.

    Args:
        files: paths inside a dataset or a folder.
        root: the folder; None: a dataset of the hub, of which nothing needs to be here.
    """
    config, _, named_split = (asked or "").rpartition("/")
    if config:
        files = [file for file in files if config in file.parts[:-1]]
    split = named_split or "train"
    loose = re.compile(rf"{re.escape(split)}[-._ ].*|.*[-._ ]{re.escape(split)}", re.DOTALL)
    named = (
        [f for f in files if split in _stated_by(f)]
        or [f for f in files if _SPLITS.get(split, "") in map(_SPLITS.get, _stated_by(f))]
        or _alone([f for f in files if loose.fullmatch(_stated(f))])
        or [f for f in _alone(files) if not asked and _SPLITS.get(_stated(f), split) == split]
    )
    if not named:
        raise _no_split(source, files, split)
    _require_one_folder(source, named, split, root)
    _require_one_kind(source, named)
    return named


def _stated_by(file: Path) -> set[str]:
    return {_stated(file), *file.parts[:-1]}


def _alone(files: list[Path]) -> list[Path]:
    return files if len(files) == 1 else []


def _no_split(source: Path, files: list[Path], split: str) -> DataError:
    name, _ = split_of(source)
    if not files:
        fix = "a dataset that a script makes has to be written as files first; scripts are not run"
        return DataError(source, None, "there are no data files", expected=f"files in {', '.join(ENDINGS)}", fix=fix)
    stated = sorted({_stated(file) for file in files})
    found = ", ".join(stated[:8]) + (", …" if len(stated) > 8 else "")
    return DataError(
        source,
        None,
        f"there is no split '{split}'; its {len(files)} data files are of {found}",
        expected=f"{split}-00000-of-00001.parquet, data/{split}-*.parquet, {split}.jsonl or the like",
        fix=f"name the split as '{name}:{stated[0]}', or give the file that is meant",
    )


def _require_one_folder(source: Path, files: list[Path], split: str, root: Path | None) -> None:
    """Subsets (configurations) of a dataset lie in folders of their own; mixing them has to be meant."""
    folders = sorted({file.parent for file in files})
    if len(folders) == 1:
        return
    first = next(folder for folder in folders if folder.parts)
    given = f"'{(root or Path()) / first}{'' if split in first.parts else f':{split}'}'"
    fix = f"give the folder of one: {given}"
    if root is None:
        name, _ = split_of(source)
        fix = f"name one: '{name}:{first.name}/{split}'"
    raise DataError(
        source,
        None,
        f"the split '{split}' has files in several folders: {', '.join(map(str, folders[:8]))}",
        expected="one subset of the dataset",
        fix=fix,
    )
