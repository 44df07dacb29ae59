"""The proof that files do what was trained. Each check names what was compared, the number, and the limit it had to
keep.

Logits are compared at every labelled position of a few held-out rows, teacher-forced, in fp32 on the CPU side;
greedy texts are compared until the two best tokens lie closer together than the two models do, where either answer
is right.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoTokenizer

from rankwise.methods import METHODS, TUNERS, targeted
from rankwise.methods.vocabulary import TARGETS
from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import device_of, evaluating, final_logits
from rankwise.records import Check, Plan, Verification
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.template import ChatText

# bf16 rounding of merged weights moved logits by up to 0.46 and KL by 2.7e-4 nats in a pilot on this model; a
# merge onto the wrong base or with the wrong scale is off by a hundred times that.
MAX_MEAN_KL = 0.01
# PiSSA trains over a residual that is rounded to bf16 and is used on the whole base: KL 0.0054 nats and logits 0.81
# apart on SmolLM2-135M. One that forgets the first values is off by over half a nat (tests/model/test_pissa.py).
MAX_CONVERTED_KL = 0.05
CONVERTED = "It trained over a residual of the base, rounded to its precision, and is used on the whole base."
SHRUNK = "That one was cut to the same directions in memory; the files hold them in factors of another rank."
# Share of positions where the greedy token may change although it leads clearly.
MAX_FLIPS = 0.01
# The same files, the same arithmetic, the same machine.
MAX_RELOAD_DIFFERENCE = 1e-3
# Smaller than this, the adapter might as well not be there.
MIN_EFFECT = 1e-2
# Rounding in bf16 moved logits by up to 0.46 in the same pilot; a prompt at the wrong position moves them by units.
MAX_BEHIND = 0.5

GOLDEN_CHAT: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello!"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": " Another?\n"},
    ],
)


@dataclass
class Subject:
    """What is to be proven.

    Attributes:
        tuned: the model as loaded from the files (adapter on its base, or the full model).
        as_base: context manager that yields the untouched base.
        merged: the merged model as reloaded, or None where there is none.
        unmerged: why this method is never merged; empty where it can be.
        rows: a few held-out rows; prompts: the beginnings of the same rows, up to the answer.
        folders: where the tokenizer files of the artifact lie.
        shrunk: was the adapter cut to a lower rank after training? It is then LoRA in factors of its own.
    """

    plan: Plan
    chat: ChatText
    tuned: Any
    as_base: Callable[[], AbstractContextManager[Any]]
    merged: Any
    unmerged: str
    rows: Sequence[Encoded]
    prompts: Sequence[Sequence[int]]
    conversations: Sequence[Any]
    trained_logits: Path
    folders: Sequence[Path]
    shrunk: bool = False


def verify(subject: Subject) -> Verification:
    """All checks that apply to the subject; `passed` only if every one did."""
    began = time.monotonic()
    checks = [_reloads(subject), _changes_output(subject)]
    if METHODS[subject.plan.verdict.method].trains == "adapter":
        checks.append(_modules_applied(subject))
    if subject.merged is not None:
        checks += _merged_agrees(subject)
    if subject.unmerged:
        checks.append(_answers_as_it_scores(subject))
    checks += [_same_ids(subject, folder) for folder in subject.folders]
    return Verification(passed=all(c.passed for c in checks), checks=tuple(checks), seconds=time.monotonic() - began)


def _reloads(subject: Subject) -> Check:
    """An adapter that is published in another form than it was trained in rounds otherwise, and is held to a KL."""
    converted = TUNERS[subject.plan.verdict.method].residual or subject.shrunk
    trained = load_file(subject.trained_logits)["logits"]
    reloaded = final_logits(subject.tuned, subject.prompts)
    same_shape = trained.shape == reloaded.shape
    difference = float((trained - reloaded).abs().max()) if same_shape else float("inf")
    text = f"The loaded files against the model in memory when training ended, {len(subject.prompts)} prompts."
    if not converted:
        return Check(
            name="reload",
            passed=difference <= MAX_RELOAD_DIFFERENCE,
            number=f"{difference:.2g} largest logit difference",
            limit=f"{MAX_RELOAD_DIFFERENCE:g}",
            text=text,
        )
    kl = _mean_kl(trained, reloaded) if same_shape else float("inf")
    return Check(
        name="reload",
        passed=kl <= MAX_CONVERTED_KL,
        number=f"KL {kl:.2g} nats per prompt on average, {difference:.2g} largest logit difference",
        limit=f"KL {MAX_CONVERTED_KL:g}",
        text=f"{text} {SHRUNK if subject.shrunk else CONVERTED}",
    )


def _mean_kl(one: torch.Tensor, other: torch.Tensor) -> float:
    """KL(one || other) in nats, mean over rows of logits."""
    return float(kl_div(log_softmax(other, 1), log_softmax(one, 1), log_target=True, reduction="sum")) / len(one)


def _changes_output(subject: Subject) -> Check:
    tuned = final_logits(subject.tuned, subject.prompts)
    with subject.as_base() as base:
        untouched = final_logits(base, subject.prompts)
    effect = float((tuned - untouched).abs().max())
    return Check(
        name="changes_output",
        passed=effect >= MIN_EFFECT,
        number=f"{effect:.2f} largest logit difference",
        limit=f"at least {MIN_EFFECT:g}",
        text="The tuned model against the untouched base: what was trained is really applied.",
    )


def _modules_applied(subject: Subject) -> Check:
    """Every part of the adapter is there and has left the value at which it changes nothing."""
    config = subject.plan.verdict.config
    assert config is not None
    method = METHODS[config.method]
    if method.neutral is None:
        learned = subject.tuned.prompt_encoder["default"].embedding.weight.detach()
        live, expected = int(learned.any(dim=1).sum()), config.num_virtual_tokens
        return _applied(live, f"{live} learned positions that are not zero", expected)
    part, value = method.neutral
    carriers = [p.detach() for name, p in subject.tuned.named_parameters() if part in name]
    expected = len(carriers)
    if TUNERS[config.method].residual and not subject.shrunk:
        # B and -B0 side by side: B alone has to differ from where it began
        live = sum(bool(torch.add(*p.chunk(2, 1)).any() and p.chunk(2, 1)[0].any()) for p in carriers)
    else:
        live = sum(bool((p != value).any()) for p in carriers)
    if "target_modules" in method.options:
        expected = sum(s.count for s in targeted(subject.plan.facts.model, config.target_modules))
        expected += config.new_token_rows == TARGETS  # the head; B of an embedding has another name
    return _applied(live, f"{live} modules whose {part.strip('.')} is not {value:g}", expected)


def _applied(live: int, number: str, expected: int | None) -> Check:
    return Check(
        name="modules_applied",
        passed=live == expected,
        number=number,
        limit=f"{expected}",
        text="Every part of the adapter carries trained weights.",
    )


def _answers_as_it_scores(subject: Subject) -> Check:
    """A method that is never merged runs at every request, and generation with a cache takes another way through it
    than scoring does: each token of the greedy answers is held against a single pass over prompt and answer.
    """
    said = answer_ids(subject.tuned, subject.chat, subject.conversations, 32)
    behind, tokens = 0.0, 0
    for conversation, answer in zip(subject.conversations, said, strict=True):
        if answer:
            prompt = subject.chat.encode_prompt(conversation)
            logits = _row_logits(subject.tuned, Encoded((*prompt, *answer), (*[IGNORE] * len(prompt), *answer), 0))
            chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
            behind = max(behind, float((logits.amax(dim=1) - chosen).max()))
            tokens += len(answer)
    return Check(
        name="answers_unmerged",
        passed=behind <= MAX_BEHIND,
        number=f"{tokens} generated tokens, at most {behind:.2g} behind the best logit of one pass without a cache",
        limit=f"{MAX_BEHIND:g}",
        text=f"Proven without a merge, because {subject.unmerged}. Greedy answers to held-out prompts against scoring.",
    )


def _merged_agrees(subject: Subject) -> list[Check]:
    """Adapter against merged. How far the two lie apart is measured once, over all positions; single positions and
    texts are then held against that, not against their own difference, which no flip could exceed.
    """
    pairs = [(_row_logits(subject.tuned, row), _row_logits(subject.merged, row)) for row in subject.rows]
    one, other = (torch.cat(side) for side in zip(*pairs, strict=True))
    difference = (one - other).abs().amax(dim=1)
    kl = _mean_kl(one, other)
    best = one.topk(2, dim=1).values
    decided = best[:, 0] - best[:, 1] > 2 * difference.mean()
    flips = int(((one.argmax(1) != other.argmax(1)) & decided).sum())
    return [
        Check(
            name="merged_logits",
            passed=kl <= MAX_MEAN_KL,
            number=f"KL {kl:.2g} nats per token on average, {float(difference.max()):.2g} largest logit difference",
            limit=f"KL {MAX_MEAN_KL:g}",
            text=f"Adapter against reloaded merged model, {len(one)} positions of {len(subject.rows)} held-out rows.",
        ),
        Check(
            name="merged_choices",
            passed=flips <= MAX_FLIPS * len(one),
            number=f"{flips} of {len(one)} most likely tokens changed although their lead is over twice the mean "
            "difference of the two models",
            limit=f"{MAX_FLIPS:.0%}",
            text="The token that greedy decoding takes, adapter against merged.",
        ),
        _same_text(subject, float(difference.max())),
    ]


def _row_logits(model: Any, row: Encoded) -> torch.Tensor:
    """(labelled positions, vocabulary) logits that predict the labels, fp32."""
    device = device_of(model)
    at = [i - 1 for i, label in enumerate(row.labels) if label != IGNORE and i > 0]
    with evaluating(model):
        ids = torch.tensor([row.ids], device=device)
        logits: torch.Tensor = model(
            input_ids=ids, use_cache=False, logits_to_keep=torch.tensor(at, device=device) - len(row.ids)
        ).logits
    return logits[0].float().cpu()


def _same_text(subject: Subject, apart: float) -> Check:
    """`apart`: the largest logit difference of the two models, as measured on the held-out rows."""
    said = [
        answer_ids(model, subject.chat, subject.conversations, 32, batch_size=1)
        for model in (subject.tuned, subject.merged)
    ]
    outcomes = [
        _texts_agree(subject, conversation, one, other, apart)
        for conversation, one, other in zip(subject.conversations, *said, strict=True)
    ]
    near_ties = outcomes.count("near tie")
    return Check(
        name="merged_text",
        passed="different" not in outcomes,
        number=f"{outcomes.count('same')} of {len(outcomes)} equal"
        + (f", {near_ties} up to a near tie" * bool(near_ties)),
        limit=f"equal until the two best tokens lie within {2 * apart:.2g}, twice the largest difference of a logit",
        text="Greedy answers of adapter and merged model to held-out prompts.",
    )


def _texts_agree(subject: Subject, conversation: Any, first: list[int], second: list[int], apart: float) -> str:
    """same | near tie | different."""
    if first == second:
        return "same"
    common = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    prefix = [[*subject.chat.encode_prompt(conversation), *first[:common]]]
    best = final_logits(subject.tuned, prefix)[0].topk(2).values
    return "near tie" if float(best[0] - best[1]) <= 2 * apart else "different"  # one falls as the other rises


def _same_ids(subject: Subject, folder: Path) -> Check:
    """Rankwise reads text by itself; a server will read it with transformers. Both must give the same ids."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = ChatText.from_folder(folder)
    wrong = []
    for messages in GOLDEN_CHAT if ours.has_template else ():
        theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        if list(theirs) != subject.chat.encode_prompt(messages):
            wrong.append(messages[-1]["content"])
    new = subject.plan.job.data.named_tokens
    wrong += [t for t in new if tokenizer(t, add_special_tokens=False)["input_ids"] != subject.chat.encode(t)]
    stops = ours.eos_token_id in subject.chat.stop_token_ids and tokenizer.eos_token_id == subject.chat.eos_token_id
    if (folder / "config.json").is_file():  # a server takes the stop tokens of a whole model from its generation_config
        stops = stops and ours.stop_token_ids == subject.chat.stop_token_ids
    return Check(
        name=f"same_ids_{folder.name}",
        passed=not wrong and stops,
        number=f"{len(GOLDEN_CHAT) - len(wrong)} of {len(GOLDEN_CHAT)} golden conversations equal; "
        f"stop token {'equal' if stops else 'different'}",
        limit="all equal",
        text=f"Chat template and tokenizer of {folder.name}/, read by transformers, against those of training.",
    )
