"""A tiny real model for every test of the trainer."""

from pathlib import Path

import pytest

from tests.finetune import tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, tokenizer and chat template."""
    return tiny.save(tmp_path_factory.mktemp("tiny"))
