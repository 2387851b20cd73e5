"""Authentication layers."""
