"""Tiny models, made once a session."""

from pathlib import Path

import pytest

from tests.tiny import tiny_gpt2, tiny_llama, tiny_llama_untied


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), dtype="fp32")


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_untied(tmp_path_factory.mktemp("untied"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))
