"""What a gateway lets through, and how long it waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Numbers of one gateway process; tenants have limits of their own in the registry.

    Attributes:
        max_length: prompt and answer together, in tokens.
        allow_base: may the untouched base be asked, as the model `base`?
        max_body_bytes: of one request.
        max_choices: answers that one request may ask for (prompts x n).
        max_open: requests that are answered or wait at once; more get 503.
        header_seconds: until the whole head of a request has come.
        body_seconds: until its whole body has come.
        stall_seconds: for which a reader may take nothing of an answer.
        idle_seconds: for which a connection is kept without a request.
        slot_seconds: for which a request waits until its adapter is loaded.
        engine_seconds: for which a request waits for an engine that starts again.
        request_seconds: from the first token that was fed to the end of the answer.
        drain_seconds: for open requests at shutdown.
        retries: times that an answer is taken up again after the engine died.
        poll_seconds: between looks at the registry.
        log_prompts: write prompts and answers into the log.
    """

    max_length: int
    allow_base: bool = False
    max_body_bytes: int = 1 << 20
    max_choices: int = 8
    max_open: int = 256
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    stall_seconds: float = 30.0
    idle_seconds: float = 30.0
    slot_seconds: float = 30.0
    engine_seconds: float = 120.0
    request_seconds: float = 600.0
    drain_seconds: float = 30.0
    retries: int = 3
    poll_seconds: float = 0.5
    log_prompts: bool = False
