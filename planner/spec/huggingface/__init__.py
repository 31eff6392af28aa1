"""Hugging Face config.json files, read without the transformers package."""

from planner.spec.huggingface.config import read_config

__all__ = ["read_config"]
