"""The live page: three static files, served under `/dashboard/`."""
