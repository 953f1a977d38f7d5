"""The vocabulary every room speaks. Standard library only; nothing here has an effect."""
