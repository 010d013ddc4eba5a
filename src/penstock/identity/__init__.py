"""Who is calling: sealed tokens and, later, sign-in."""
