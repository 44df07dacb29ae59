"""A chat template into a function that renders exactly as transformers' `apply_chat_template` does.

Templates come with downloaded models and are code: they run in jinja2's immutable sandbox, with transformers' additions
(utils/chat_template_utils.py of transformers 5.23) and nothing else.
"""

import json
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

Render = Callable[[Sequence[Mapping[str, Any]], bool, Mapping[str, str]], str]


class _Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}...{% endgeneration %}`, which marks what the assistant said, and renders its inside."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 reads the class attribute

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, not the bare body: it is a scope of its own in transformers too.
        return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        return caller()


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


def compile_template(source: str) -> Render:
    """The function (messages, add_generation_prompt, special tokens by name) -> text of a chat template.

    Raises:
        ModelError: the template is not jinja2; and, when called, the template refuses the messages or fails on them.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace
    )
    try:
        template = environment.from_string(source)
    except Exception as fault:  # a template is foreign code: whatever it raises is the model's fault
        where = f" (line {fault.lineno})" if isinstance(fault, jinja2.TemplateSyntaxError) else ""
        raise ModelError(
            f"the chat template does not compile{where}: {fault}",
            expected="a jinja2 chat template as transformers reads it",
            fix="mend chat_template.jinja in the model folder",
        ) from None

    def render(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, tokens: Mapping[str, str]) -> str:
        try:
            return template.render(
                messages=[_as_templates_see_it(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **tokens,
            )
        except Exception as fault:
            raise ModelError(
                f"the chat template refuses these messages: {fault}",
                expected="messages in the order and with the roles that this model's template takes",
            ) from None

    return render


def _as_templates_see_it(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without null values, and with reasoning under each name that templates read."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[key] for key in _REASONING_KEYS if key in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}
