"""The live page in a headless Chromium, against a real application on a real Postgres."""
