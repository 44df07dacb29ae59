"""Writes src/rankwise/observe/recipes/*.toml: every key that Axolotl, LLaMA-Factory, TRL and transformers take, with
its default, its choices and what they say of it when it is deprecated, read from their sources without importing them.

    python tests/observe/recipes/schemas_from_upstream.py FOLDER

FOLDER holds the checkouts `axolotl/`, `LLaMA-Factory/` and `trl/`; each has its commit in a file COMMIT, or is a git
checkout. transformers is the installed one.
"""

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[3] / "src" / "rankwise" / "observe" / "recipes"
NOTHING = object()
_TRANSFORMERS = f"transformers {version('transformers')}"


@dataclass
class Key:
    """One field of a settings class."""

    default: Any = NOTHING
    choices: tuple[str, ...] = ()
    deprecated: str = ""


@dataclass
class Classes:
    """The settings classes of some files: name -> (bases, fields)."""

    bases: dict[str, list[str]] = field(default_factory=dict)
    fields: dict[str, dict[str, Key]] = field(default_factory=dict)

    def read(self, path: Path) -> "Classes":
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                self.bases[node.name] = [ast.unparse(b) for b in node.bases]
                lines = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
                named = [n for n in lines if not ast.unparse(n.target).startswith("_")]
                self.fields[node.name] = {name: key for n in named for name, key in _keys(n).items()}
        return self

    def of(self, *names: str) -> dict[str, Key]:
        """The keys of these classes and of what they inherit from; a class's own win."""
        found: dict[str, Key] = {}
        for name in names:
            inherited = self.of(*(b for b in self.bases.get(name, []) if b in self.fields))
            found |= inherited | self.fields[name]
        return found


def _keys(node: ast.AnnAssign) -> dict[str, Key]:
    """The field's name and, where it has one, its alias: pydantic takes both here (populate_by_name)."""
    spelled = [ast.unparse(node.target)]
    key = Key(choices=_choices(node.annotation))
    value = node.value
    if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in ("Field", "field"):
        said = {k.arg: k.value for k in value.keywords}
        if "alias" in said:
            spelled.append(ast.literal_eval(said["alias"]))
        key.default = _constant(said.get("default", value.args[0] if value.args else None))
        if "deprecated" in said:
            text = _constant(said["deprecated"])
            key.deprecated = text if isinstance(text, str) else "deprecated"
        if "metadata" in said and isinstance(said["metadata"], ast.Dict):
            key.choices = key.choices or _listed(said["metadata"])
    else:
        key.default = _constant(value)
    return dict.fromkeys(spelled, key)


def _listed(metadata: ast.Dict) -> tuple[str, ...]:
    """metadata={"choices": [...]}."""
    for name, value in zip(metadata.keys, metadata.values, strict=True):
        if name is not None and _constant(name) == "choices" and isinstance(found := _constant(value), list):
            return tuple(map(str, found))
    return ()


def _constant(node: ast.AST | None) -> Any:
    try:
        return NOTHING if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return NOTHING


def _choices(annotation: ast.expr) -> tuple[str, ...]:
    """The strings of an annotation that is a Literal, or a Literal or None; none where more is allowed."""
    text = ast.unparse(annotation)
    found = re.fullmatch(r"(?:Optional\[)?Literal\[([^\]]*)\](?: \| None|\])?", text)
    values = ast.literal_eval(f"({found[1]},)") if found else ()
    return tuple(v for v in values if isinstance(v, str)) if all(isinstance(v, str) for v in values) else ()


def retired_axolotl(path: Path) -> dict[str, str]:
    """Keys of Axolotl's DeprecatedParameters -> the sentence of their validator."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("validate_"):
            texts = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
            spoken = [t for t in texts if " " in t]
            if spoken:
                found[node.name.removeprefix("validate_")] = " ".join("".join(spoken[:2]).split())
    return found


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(name: str, head: dict[str, str], keys: dict[str, Key], nested: dict[str, list[str]]) -> str:
    """The file's text; defaults that are no constants, or None, are left out: the tool decides, or there is none."""
    lines = ["# Generated by tests/observe/recipes/schemas_from_upstream.py; do not edit."]
    lines += [f"{k} = {_toml(v)}" for k, v in head.items()]
    lines += ["", "keys = [", *(f"    {_toml(k)}," for k in sorted(keys)), "]", "", "[defaults]"]
    plain = {k: v.default for k, v in sorted(keys.items()) if isinstance(v.default, str | int | float | bool)}
    lines += [f"{_toml(k)} = {_toml(v)}" for k, v in plain.items()]
    lines += [
        "",
        "[choices]",
        *(f"{_toml(k)} = {_toml(list(v.choices))}" for k, v in sorted(keys.items()) if v.choices),
    ]
    lines += [
        "",
        "[deprecated]",
        *(f"{_toml(k)} = {_toml(v.deprecated)}" for k, v in sorted(keys.items()) if v.deprecated),
    ]
    lines += ["", "[nested]", *(f"{_toml(k)} = {_toml(sorted(v))}" for k, v in nested.items())]
    return "\n".join(lines) + "\n"


def _commit(folder: Path) -> str:
    written = folder / "COMMIT"
    if written.is_file():
        return written.read_text().strip()
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _pinned(folder: Path) -> str:
    """What it asks of transformers, e.g. `==5.14.1`."""
    found = re.search(
        r'"transformers((?:==|>=|<=|!=|<|>)[^"]*)"', (folder / "pyproject.toml").read_text(encoding="utf-8")
    )
    return found[1] if found else ""


def axolotl(folder: Path) -> str:
    schemas = folder / "src" / "axolotl" / "utils" / "schemas"
    classes = Classes()
    for path in sorted(schemas.glob("*.py")):
        classes.read(path)
    keys = classes.of("AxolotlInputConfig")
    for path in sorted((folder / "src" / "axolotl" / "integrations").glob("*/args.py")):
        plugin = Classes().read(path)
        tops = [n for n in plugin.fields if n.endswith("Args") or n == "SwanLabConfig"]
        keys = {k: v for name in tops for k, v in plugin.of(name).items()} | keys
    for key, sentence in retired_axolotl(schemas / "deprecated.py").items():
        if key in keys:
            keys[key].deprecated = sentence
    kinds = ("SFTDataset", "DPODataset", "KTODataset", "StepwiseSupervisedDataset", "SyntheticDataset")
    nested = {
        "datasets": list(classes.of(*kinds, "PretrainingDataset")),
        "special_tokens": list(classes.of("SpecialTokensConfig")),
    }
    head = {
        "tool": "Axolotl",
        "version": (folder / "VERSION").read_text().strip(),
        "commit": _commit(folder),
        "requires": _pinned(folder),
        "source": "https://github.com/axolotl-ai-cloud/axolotl src/axolotl/utils/schemas, src/axolotl/integrations",
    }
    return write("axolotl", head, keys, nested)


def llama_factory(folder: Path) -> str:
    classes = Classes().read(Path(find_spec("transformers").origin).with_name("training_args.py"))
    classes.read(Path(find_spec("transformers").origin).with_name("training_args_seq2seq.py"))
    hparams = folder / "src" / "llamafactory" / "hparams"
    mine = Classes()
    for path in sorted(hparams.glob("*_args.py")):
        mine.read(path)
    own = mine.of("ModelArguments", "DataArguments", "FinetuningArguments", "GeneratingArguments")
    keys = classes.of("Seq2SeqTrainingArguments") | mine.of("RayArguments", "ProfilerArguments", "Fp8Arguments") | own
    keys |= {"overwrite_output_dir": Key(False), "kt_config": Key()}  # of its own TrainingArguments; of accelerate
    return write("llamafactory", _factory_head(folder, "src/llamafactory/hparams"), keys, {})


def llama_factory_v1(folder: Path) -> str:
    classes = Classes()
    for path in sorted((folder / "src" / "llamafactory" / "v1" / "config").glob("*_args.py")):
        classes.read(path)
    keys = classes.of("ModelArguments", "DataArguments", "TrainingArguments", "SampleArguments")
    return write("llamafactory_v1", _factory_head(folder, "src/llamafactory/v1/config"), keys, {})


def _factory_head(folder: Path, where: str) -> dict[str, str]:
    said = (folder / "src" / "llamafactory" / "extras" / "env.py").read_text(encoding="utf-8")
    return {
        "tool": "LLaMA-Factory",
        "version": re.search(r'VERSION = "([^"]+)"', said)[1],
        "commit": _commit(folder),
        "requires": _pinned(folder),
        "source": f"https://github.com/hiyouga/LLaMA-Factory {where}, {_TRANSFORMERS}",
    }


def trl(folder: Path) -> str:
    classes = Classes().read(Path(find_spec("transformers").origin).with_name("training_args.py"))
    for name in ("trainer/base_config.py", "trainer/sft_config.py", "trainer/model_config.py", "scripts/utils.py"):
        classes.read(folder / "trl" / name)
    keys = classes.of("SFTConfig") | classes.of("ScriptArguments", "ModelConfig", "DatasetMixtureConfig")
    keys |= {"env": Key(), "config": Key(), "accelerate_config": Key(), "datasets": Key()}
    for name in ("pad_token",):
        keys[name].deprecated = "set tokenizer.pad_token instead; removed in TRL 2.0"
    head = {
        "tool": "TRL",
        "version": (folder / "VERSION").read_text().strip(),
        "commit": _commit(folder),
        "requires": _pinned(folder),
        "source": f"https://github.com/huggingface/trl trl/trainer, trl/scripts, {_TRANSFORMERS}",
    }
    return write("trl", head, keys, {"datasets": list(classes.of("DatasetConfig"))})


def trainer() -> str:
    classes = Classes().read(Path(find_spec("transformers").origin).with_name("training_args.py"))
    head = {
        "tool": "transformers",
        "version": version("transformers"),
        "commit": f"v{version('transformers')}",
        "requires": "",
        "source": "https://github.com/huggingface/transformers src/transformers/training_args.py",
    }
    return write("trainer", head, classes.of("TrainingArguments"), {})


def everything(folder: Path) -> dict[str, str]:
    """File name -> text."""
    return {
        "axolotl.toml": axolotl(folder / "axolotl"),
        "llamafactory.toml": llama_factory(folder / "LLaMA-Factory"),
        "llamafactory_v1.toml": llama_factory_v1(folder / "LLaMA-Factory"),
        "trl.toml": trl(folder / "trl"),
        "trainer.toml": trainer(),
    }


if __name__ == "__main__":
    for name, text in everything(Path(sys.argv[1])).items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(name, text.count("\n"))
