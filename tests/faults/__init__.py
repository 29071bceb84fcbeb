"""What must hold whatever is killed, filled up or cut off."""
