def labels() -> None:
    """."""
