"""What a member's wallet decides: joining, backing up, recovering. Pure, as all of `protocol`."""
