"""What is claimed, measured: each module runs the alternative beside ours and prints the ratio."""
