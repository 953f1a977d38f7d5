"""Grafana boards as code, and the files that provision them."""
