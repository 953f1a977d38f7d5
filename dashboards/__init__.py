"""Pages and dashboards: files that people look at."""
