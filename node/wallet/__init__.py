"""A member's wallet: its encrypted folder, its calls to guardians, and the work it does."""
