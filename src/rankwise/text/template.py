"""A model folder's tokenizer and chat template, read without torch and without transformers.

Training, evaluation, proof and serving all encode through `ChatText`, so "the same text" means the same ids.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.decoders import DecodeStream

from rankwise.errors import JobError, ModelError
from rankwise.records import Job
from rankwise.text.sandbox import Template

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatText:
    """Text to ids and back for one model.

    Attributes:
        bos_token_id, pad_token_id: ids, or None where the tokenizer names no such token.
        eos_token_id: the id that ends a document.
        stop_token_ids: every id on which generation stops, sorted: EOS and those of generation_config.json.
        special_tokens: the named tokens that the template sees, e.g. {"bos_token": "<s>"}.
        has_template: whether conversations can be rendered.
        template: the chat template's source, or None.
        tool_template: the source that is taken for conversations with `tools`, where the model has one of its own.
        template_hash: sha256 of the template and the tokens it can name; None without a template.
        tokenizer_hash: sha256 of the tokenizer, as it encodes.
        vocab_size: tokens the tokenizer knows, added ones included (a model's embedding may have more rows).
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str],
        *,
        template: str | None = None,
        tool_template: str | None = None,
        stop_token_ids: Sequence[int] = (),
    ):
        """Prefer `from_folder`.

        Args:
            tokenizer: changed in place: truncation and padding go, special tokens that it lacks are added.
            special_tokens: the named tokens.
            template: the chat template's source.
            tool_template: another one for conversations with `tools`.
            stop_token_ids: ids that stop generation besides EOS.

        Raises:
            ModelError: no EOS is known, or the template does not compile.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        lacking = [token for token in special_tokens.values() if tokenizer.token_to_id(token) is None]
        tokenizer.add_special_tokens(lacking)
        self._tokenizer = tokenizer
        self.special_tokens = dict(special_tokens)
        self.bos_token_id = self._id_of("bos_token")
        self.pad_token_id = self._id_of("pad_token")
        self.eos_token_id = self._eos(stop_token_ids)
        self.stop_token_ids = tuple(sorted({self.eos_token_id, *stop_token_ids}))
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.template, self.tool_template = template, tool_template
        self.has_template = template is not None
        self.template_hash = None if template is None else _hash(template, tool_template, self.special_tokens)
        self._plain = None if template is None else Template(template)
        self._tools = None if tool_template is None else Template(tool_template)

    @classmethod
    def for_job(cls, job: Job, folder: Path) -> "ChatText":
        """The text of a job's model: with the job's new tokens and chat template. Raises as `from_folder`."""
        return cls.from_folder(folder, job.data.named_tokens, chat_template=job.chat_template)

    @classmethod
    def from_folder(
        cls, folder: Path, new_tokens: Sequence[str] = (), *, chat_template: Path | None = None
    ) -> "ChatText":
        """Read tokenizer.json, tokenizer_config.json, chat_template.jinja, additional_chat_templates/tool_use.jinja,
        generation_config.json and config.json.

        Args:
            new_tokens: added to the vocabulary, in this order.
            chat_template: a jinja file that takes the place of the folder's own templates.

        Raises:
            JobError: the vocabulary has one of the new tokens.
            ModelError: tokenizer.json is missing, a file cannot be read, no EOS is known, the template is broken.
        """
        folder = Path(folder)
        tokenizer = _tokenizer(folder)
        config = _json(folder / "tokenizer_config.json")
        named = _templates(folder, config) if chat_template is None else {"default": _source(chat_template)}
        chat = cls(
            tokenizer,
            _special_tokens(folder, config),
            template=named.get("default"),
            tool_template=named.get("tool_use"),
            stop_token_ids=_stops(folder),
        )
        chat._add(new_tokens)
        return chat

    def _add(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            if (known := self._tokenizer.token_to_id(token)) is not None:
                raise JobError(
                    f"data.new_tokens: {token!r} is token {known} of the model's vocabulary already",
                    fix="leave it out of the list",
                )
        self._tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in tokens])
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def ids_of(self, tokens: Sequence[str]) -> tuple[int, ...]:
        """The id of each token of the vocabulary."""
        found = [self._tokenizer.token_to_id(token) for token in tokens]
        return tuple(number for number in found if number is not None)

    def save_tokenizer(self, folder: Path) -> None:
        """Write tokenizer.json with the tokens that were added."""
        self._tokenizer.save(str(folder / "tokenizer.json"))

    @cached_property
    def tokenizer_hash(self) -> str:
        return hashlib.sha256(self._tokenizer.to_str().encode("utf-8")).hexdigest()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        given: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as the model's chat template writes it, and as transformers' `apply_chat_template` does.

        Args:
            given: what the template sees beside the messages: `tools`, `documents`, and names of its own.

        Raises:
            ModelError: the model has no template, or its template refuses these messages.
        """
        return self._template_for(messages, given).render(messages, add_generation_prompt, self.special_tokens, given)

    def said(
        self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any] | None = None
    ) -> list[tuple[int, int]] | None:
        """The characters [start, end) of `render(messages)` that the template itself marks by `{% generation %}` as
        said by the assistant; None where it marks nothing. Raises as `render`.
        """
        template = self._template_for(messages, given)
        return template.spans(messages, self.special_tokens, given) if template.marks else None

    def _template_for(self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any] | None) -> Template:
        if self._plain is None:
            raise ModelError(
                "the model has no chat template, so a conversation cannot be written as text",
                expected="chat_template.jinja, or a `chat_template` (named 'default') in tokenizer_config.json",
                fix="take the instruct version of the model, give a jinja file as `chat_template` in the job, or use "
                "rows of plain text",
            )
        if not messages:
            raise ModelError("an empty conversation cannot be rendered", expected="at least one message")
        with_tools = given is not None and given.get("tools") is not None
        return self._tools if with_tools and self._tools is not None else self._plain

    def encode(self, text: str) -> list[int]:
        """Ids of exactly this text; nothing is added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document: with the tokens that the model puts around one, and EOS at the end in any case."""
        # tokenizer.json alone decides: transformers ignores `add_bos_token` where that file is present.
        ids = list(self._tokenizer.encode(text, add_special_tokens=True).ids)
        return ids if ids and ids[-1] == self.eos_token_id else [*ids, self.eos_token_id]

    def encode_prompt(self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any] | None = None) -> list[int]:
        """Ids up to where the assistant begins to speak.

        Raises:
            ModelError: as `render`.
        """
        return self.encode(self.render(messages, add_generation_prompt=True, given=given))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of these ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def encode_opening(self, text: str) -> list[int]:
        """Ids of a text that is to be gone on with: what the model puts before a document, and no EOS that it would
        put after one.
        """
        ids, plain = list(self._tokenizer.encode(text, add_special_tokens=True).ids), self.encode(text)
        added_end = bool(ids) and ids[-1] == self.eos_token_id and (not plain or plain[-1] != self.eos_token_id)
        return ids[:-1] if added_end else ids

    def decoding(self, before: Sequence[int] = ()) -> Callable[[int], str]:
        """A function that takes the ids of an answer one after the other and gives the text that each completes: empty
        while a character is unfinished. Special tokens are left out.

        Args:
            before: the last ids in front of the answer, where it goes on in the same text: they decide about a space.
        """
        stream = (
            DecodeStream(ids=list(before), skip_special_tokens=True)
            if before
            else DecodeStream(skip_special_tokens=True)
        )
        return lambda token: stream.step(self._tokenizer, token) or ""

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode(text)`, and for each id the characters [start, end) it stands for."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return list(encoding.ids), list(encoding.offsets)

    def _id_of(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self._tokenizer.token_to_id(token)

    def _eos(self, stops: Sequence[int]) -> int:
        eos = self._id_of("eos_token")
        if eos is not None:
            return eos
        if stops:
            return stops[0]
        raise ModelError(
            "the model names no end-of-sequence token, so nothing trained on it would learn to stop",
            expected="`eos_token` in tokenizer_config.json or `eos_token_id` in generation_config.json or config.json",
            fix="add the eos_token that the model was trained with to tokenizer_config.json",
        )


def _tokenizer(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        what = "a model folder without tokenizer" if folder.is_dir() else "there is no such model folder"
        raise ModelError(
            f"{folder}: {what}",
            expected="tokenizer.json beside the model's config.json",
            fix=f"AutoTokenizer.from_pretrained(...).save_pretrained('{folder}') writes it",
        )
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as fault:  # the library raises bare Exception
        raise ModelError(
            f"{path}: the tokenizer cannot be read: {fault}",
            expected="a tokenizer.json of the tokenizers library",
            fix="fetch the file again, or save it with this version of tokenizers",
        ) from None


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(f"{path}: the file cannot be read: {fault}", expected="valid JSON") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: the file does not hold an object", expected="a JSON object")
    return value


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    # Older folders name them in special_tokens_map.json; transformers lets that file win unless the newer key is there.
    older = {} if "added_tokens_decoder" in config else _json(folder / "special_tokens_map.json")
    tokens = {name: _content({**config, **older}.get(name)) for name in _SPECIAL}
    return {name: token for name, token in tokens.items() if token}


def _content(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The folder's chat templates by name; files go before tokenizer_config.json, as in transformers."""
    files = {"default": folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if found := {name: _source(path) for name, path in files.items() if path.is_file()}:
        return found
    stored = config.get("chat_template")
    if isinstance(stored, list):
        named = {entry.get("name"): entry.get("template") for entry in stored if isinstance(entry, dict)}
    else:
        named = {"default": stored}
    return {str(name): source for name, source in named.items() if isinstance(source, str)}


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as fault:
        raise ModelError(f"{path}: the chat template cannot be read: {fault}", expected="UTF-8 text") from None


def _stops(folder: Path) -> list[int]:
    for name in ("generation_config.json", "config.json"):  # transformers derives the first from the second
        found = _json(folder / name).get("eos_token_id")
        ids = found if isinstance(found, list) else [found]
        if stops := [token for token in ids if isinstance(token, int) and not isinstance(token, bool) and token >= 0]:
            return stops
    return []


def _hash(template: str, tool_template: str | None, special_tokens: Mapping[str, str]) -> str:
    # Only tokens that can change the text: a pad token that a trainer sets is not another template.
    sources = [template] if tool_template is None else [template, tool_template]
    named = "".join(sources)
    seen = {key: token for key, token in special_tokens.items() if key in ("bos_token", "eos_token") or key in named}
    return hashlib.sha256(json.dumps([*sources, seen], sort_keys=True).encode("utf-8")).hexdigest()
