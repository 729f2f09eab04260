"""Serving what was trained: its chat template, vLLM's OpenAI-compatible server, and what is asked of it."""
