"""What people write down: the file, the environment, the flags."""
