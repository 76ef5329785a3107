"""What the machine could do, and what Holdfast makes of it: each figure beside its floor."""
