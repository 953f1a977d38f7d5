"""Starting, stopping and watching processes: a launcher is three verbs."""
