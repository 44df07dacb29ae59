"""A tiny tokenizer, trained here, under chat templates of several kinds; nothing is fetched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

SENTENCES = [
    "You are a helpful assistant. user system assistant",
    "The capital of France is Paris, and the capital of Peru is Lima.",
    "Where does the river go? It goes to the sea, of course!\n\nAnd then?  It rains.",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|header|>", "<|/header|>", "<|eot|>"]

CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

LLAMA3 = """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('no such role: ' + message.role) }}
    {%- endif %}
    {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
"""

GENERATION = """{%- set ns = namespace(turns=0) %}
{%- for message in messages %}
    {%- if loop.index0 > 99 %}{% break %}{% endif %}
    {%- set ns.turns = ns.turns + 1 %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# Puts the number of messages first, so every further message changes the beginning.
UNSTABLE = """{{ messages | length }}: {% for message in messages %}{{ message['role'] + ' ' + message['content'] }}
{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"""

# No stop token of its own, and a blank that merges with the answer's first word.
PLAIN = """{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""

TOOLS = """{% for message in messages %}{{ message | tojson }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}{"role": "assistant"{% endif %}"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "generation": GENERATION, "unstable": UNSTABLE, "plain": PLAIN}
TEMPLATES["tools"] = TOOLS

ModelFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """A byte-level BPE with the special tokens of ChatML and Llama 3, as tokenizer.json."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer.to_str()


@pytest.fixture
def model_folder(tokenizer_json: str, tmp_path: Path) -> ModelFolder:
    """Builds a folder: tokenizer.json, tokenizer_config.json and, if `template` names one, chat_template.jinja."""

    def build(template: str | None = "chatml", **config: object) -> Path:
        folder = tmp_path / f"model-{template}"
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        ends = {"bos_token": "<|begin|>", "eos_token": "<|eot|>" if template == "llama3" else "<|im_end|>"}
        named = {"tokenizer_class": "PreTrainedTokenizerFast", **ends, **config}
        (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
        if template is not None:
            (folder / "chat_template.jinja").write_text(TEMPLATES[template], encoding="utf-8")
        return folder

    return build
