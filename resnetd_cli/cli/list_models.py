def list_models() -> None:
    """."""
