"""What a core runs in: bare (here), or inside the node (in `simulations.world`)."""
