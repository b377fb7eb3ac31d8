"""Flows: how audio, text and transcripts move. No web framework, no torch, no event loop, no clock."""
