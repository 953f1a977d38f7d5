"""Carries out a plan through ports: intent first, evidence before conclusions."""
