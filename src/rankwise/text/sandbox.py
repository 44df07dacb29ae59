"""A chat template into a function that renders exactly as transformers' `apply_chat_template` does.

Templates come with downloaded models and are code: they run in jinja2's immutable sandbox, with transformers' additions
(utils/chat_template_utils.py of transformers 5.23) and nothing else.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from rankwise.errors import ModelError

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class _Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}...{% endgeneration %}`, which marks what the assistant said, and renders its inside.

    While `pieces` holds the text that was written so far, the characters of each inside are added to `spans`.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 reads the class attribute
    pieces: list[str] | None = None
    spans: list[tuple[int, int]]

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, not the bare body: it is a scope of its own in transformers too.
        return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        said = caller()
        if self.pieces is not None:
            start = sum(map(len, self.pieces))
            self.spans.append((start, start + len(said)))
        return said


class _Dict:
    """`dict` as templates may call it, without the class behind it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """jinja2's namespace that refuses names with a leading underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args  # not by name: `namespace(self=...)` is a legal call
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # jinja2's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class Template:
    """A compiled chat template.

    Attributes:
        marks: whether it says itself, by `{% generation %}`, what the assistant said.
    """

    def __init__(self, source: str):
        """Raises ModelError where `source` is not jinja2."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(
            raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace
        )
        try:
            self._template = environment.from_string(source)
        except Exception as fault:  # a template is foreign code: whatever it raises is the model's fault
            where = f" (line {fault.lineno})" if isinstance(fault, jinja2.TemplateSyntaxError) else ""
            raise ModelError(
                f"the chat template does not compile{where}: {fault}",
                expected="a jinja2 chat template as transformers reads it",
                fix="mend chat_template.jinja in the model folder, or the file that the job gives as chat_template",
            ) from None
        self._generation = next(e for e in environment.extensions.values() if isinstance(e, _Generation))
        self.marks = _MARKED.search(source) is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tokens: Mapping[str, str],
        given: Mapping[str, Any] | None = None,
    ) -> str:
        """The text that the template writes.

        Args:
            tokens: special tokens by name.
            given: what else the template sees: `tools`, `documents`, and any name of its own.

        Raises:
            ModelError: the template refuses the messages or fails on them.
        """
        return self._write(messages, add_generation_prompt, tokens, given, [])

    def spans(
        self, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], given: Mapping[str, Any] | None = None
    ) -> list[tuple[int, int]]:
        """The characters [start, end) of each `{% generation %}` in the text of `render`. Raises as `render`."""
        pieces: list[str] = []
        self._generation.pieces, self._generation.spans = pieces, []
        try:
            self._write(messages, False, tokens, given, pieces)
            return self._generation.spans
        finally:
            self._generation.pieces = None

    def _write(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tokens: Mapping[str, str],
        given: Mapping[str, Any] | None,
        pieces: list[str],
    ) -> str:
        seen = [_as_templates_see_it(message) for message in messages]
        names = {**tokens, "tools": None, "documents": None, **(given or {})}
        try:
            for piece in self._template.generate(messages=seen, add_generation_prompt=add_generation_prompt, **names):
                pieces.append(piece)
        except Exception as fault:
            raise ModelError(
                f"the chat template refuses these messages: {fault}",
                expected="messages in the order and with the roles that this model's template takes",
            ) from None
        return "".join(pieces)


def _as_templates_see_it(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without null values, and with reasoning under each name that templates read."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[key] for key in _REASONING_KEYS if key in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}
