"""Everyday sentences for round trips: spoken by one engine, written down by another."""

from __future__ import annotations

SENTENCES: tuple[str, ...] = (
    "Please turn on the kitchen light.",
    "What time does the next train leave?",
    "I would like a cup of coffee.",
    "The weather is going to be nice tomorrow.",
    "Can you send me the report by Friday?",
    "My brother lives in a small house near the river.",
    "She opened the door and looked outside.",
    "We need to buy some bread and milk.",
    "The meeting starts at nine in the morning.",
    "Thank you very much for your help.",
)
"""Ten short sentences whose words are all in the embedded recogniser's dictionary."""
