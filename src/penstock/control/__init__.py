"""What operators ask of a running gateway: the admin port."""
