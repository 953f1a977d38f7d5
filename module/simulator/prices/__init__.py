"""Where prices come from: sources, the walk inside a minute, mark and index. PURE but for files."""
