"""The commands of `lookalike`, by what they are about."""
