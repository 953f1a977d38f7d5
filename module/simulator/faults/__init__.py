"""Misbehaviour on demand: the catalogue, the plan, the lies, the real events."""
