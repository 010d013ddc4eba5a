"""What is allowed, in what order: one file each, its settings struct inside."""
