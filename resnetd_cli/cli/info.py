def info() -> None:
    """."""
