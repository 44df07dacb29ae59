"""`--methods base,fewshot,lora:r=8,a=lora:r=16:lora_alpha=32` -> Arms."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from pydantic import ValidationError

from rankwise.errors import UsageError
from rankwise.methods import METHODS
from rankwise.records import Arm, MethodChoice
from rankwise.records.bakeoff import ArmKind

UNTRAINED: dict[str, ArmKind] = {"base": "base", "fewshot": "fewshot", "retrieval": "retrieval"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Options of a job's `method` that name a place or a file: of two arms that are to differ in the method alone, no one
# goes on from an adapter.
LEFT_OUT = ("adapter",)


def read_arms(text: str) -> tuple[Arm, ...]:
    """The arms of a comparison in their order, at least two.

    Each is `METHOD`, `METHOD:OPTION=VALUE:...` or `NAME=METHOD...`; the names of modules in `target_modules` are joined
    by `+`. The same method may stand under two names, which compares it with itself.

    Raises:
        UsageError: an unknown method or option (with the nearest one), a value that it cannot have, a name that is
            there twice, or fewer than two arms.
    """
    arms = [_arm(said.strip()) for said in text.split(",") if said.strip()]
    if len(arms) < 2:
        raise UsageError(
            f"--methods names {len(arms)} arm{'s' if len(arms) != 1 else ''}",
            expected="at least two to compare, such as base,lora:r=8,full",
        )
    _require_different([arm.name for arm in arms])
    return tuple(arms)


def _arm(said: str) -> Arm:
    given, method = _named(said)
    name, *options = method.split(":")
    if name in UNTRAINED:
        if options:
            raise UsageError(f"--methods {said}: {name} has no options", fix=f"write {name} alone")
        return Arm(name=given or name, kind=UNTRAINED[name], method=None)
    if name not in METHODS:
        known = (*UNTRAINED, *METHODS)
        raise _unknown(f"--methods {said}: there is no method {name}", name, known)
    return Arm(name=given or method, kind="trained", method=_choice(said, name, options))


def _named(said: str) -> tuple[str | None, str]:
    """(the name that it is given, the rest)"""
    head, _, _ = said.partition(":")
    name, equals, _ = head.partition("=")
    if not equals:
        return None, said
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--methods {said}: {name!r} is no name of an arm", expected="letters, digits, points, dashes, underscores"
        )
    return name, said[len(name) + 1 :]


def _choice(said: str, method: str, options: Sequence[str]) -> MethodChoice:
    allowed = tuple(option for option in METHODS[method].options if option not in LEFT_OUT)
    values: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not value:
            raise UsageError(f"--methods {said}: {option!r} says no value", expected="OPTION=VALUE, such as r=8")
        if key not in allowed:
            raise _unknown(f"--methods {said}: {method} has no option {key}", key, allowed)
        if key in values:
            raise UsageError(f"--methods {said}: {key} is given twice")
        values[key] = tuple(value.split("+")) if "+" in value else value
    try:
        return MethodChoice.model_validate({"name": method, **values})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"--methods {said}: {at}: {first['msg']}") from None


def _unknown(what: str, said: str, known: Sequence[str]) -> UsageError:
    near = get_close_matches(said, known, n=1)
    return UsageError(
        what, expected=f"one of {', '.join(known)}" if known else "none", fix=f"did you mean {near[0]}?" if near else ""
    )


def _require_different(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"--methods names {name} twice",
                expected="arms of different names",
                fix=f"to compare it with itself, name both: a={name},b={name}",
            )
